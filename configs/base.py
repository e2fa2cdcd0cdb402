"""Every field of a run. A family's config starts from here and changes what it must."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The resolved defaults; `lab.core.config` states the type and the range of each field."""
    c = ConfigDict()
    c.name = ""  # a label for tables; not part of the identity
    c.study = "default"  # the folder that runs compared with each other share; not in the identity
    c.seed = 0  # initial parameters, data order, dropout
    c.data = data()
    c.tokenizer = _tokenizer()
    c.model = _model()
    c.optimizer = optimizer()
    c.train = train()
    c.execution = execution()
    return c


def data() -> ConfigDict:
    """Which images."""
    c = ConfigDict()
    c.name = "dead_leaves"  # a file of lab/data, or any TFDS image data set
    c.train_examples = 0  # images; 0: the whole split
    c.validation_examples = 1024  # images; the same ones for every run of a study
    c.train_split = "train"
    c.validation_split = "validation"
    c.augmentation = "none"  # none | flip | ten_crop: which views of an image training draws from
    c.manual_dir = ""  # where files that TFDS can not download lie; "": TFDS_MANUAL_DIR
    c.data_dir = ""  # where prepared data lie; "": TFDS_DATA_DIR, else .cache/tfds
    return c


def _tokenizer() -> ConfigDict:
    """How an image becomes tokens."""
    c = ConfigDict()
    c.name = "pixels"  # pixels | pixel_bits (a position is a whole pixel) | trained
    c.resolution = 8  # pixels along a side after area down-scaling; of pixels, as the next two
    c.channels = "rgb"  # grey | rgb
    c.levels = 16  # quantisation levels of a sub-pixel
    c.run = ""  # the run directory of a trained tokenizer
    c.trained = ""  # its identity; "": the last part of `run`
    c.sampled = False  # draw the bits of a binary tokenizer anew at each step
    c.codes = ""  # the folder of lab.launch.encode; "": images are encoded when a run begins
    return c


def _model() -> ConfigDict:
    """The generator and its size."""
    c = ConfigDict()
    c.family = "elm"
    c.size = "s1"  # a name from the family's table, for the record
    c.embedding = ""  # subcodes | bits | latents | patches; "" here and below: the family's
    c.backbone = ""  # llama | encoder_decoder | dit
    c.order = ""  # raster | masked | joint
    c.scan = "rows"  # how "raster" goes over the cells: see lab/models/scans.py; any: at random
    c.head = ""  # categorical | tied_categorical | bernoulli | bernoulli_diffusion |
    #              gaussian_diffusion | noise
    c.depth = 0  # blocks; 0 here and in the next three: as the named size says
    c.width = 0  # features of the residual stream
    c.heads = 0
    c.mlp_hidden = 0  # features inside SwiGLU, or inside the MLP of a vision transformer
    c.decoder_depth = 0  # blocks of the decoder of "encoder_decoder", whose encoder has `depth`
    c.denoiser_depth = 0  # residual blocks of a diffusion head
    c.denoiser_width = 0  # features of it
    c.subcodes = 1  # t of the t-k split: sub-codes at one position; as many as bits: bits
    c.modulation = "none"  # none | shared | blocks: adaLN of the class in Llama blocks
    c.buffer = 0  # copies of the class before the tokens of "encoder_decoder"
    c.patch = 1  # cells a side that "joint" takes together
    c.mask_schedule = "none"  # none | cosine | linear | truncated_normal: see lab/models/masks.py
    c.mask_rates = 0  # different shares that "cosine" and "linear" draw from
    c.label_smoothing = 0.0  # share of a uniform distribution in categorical targets
    c.qk_norm = False  # RMSNorm of each head's queries and keys in Llama blocks
    c.z_loss = 0.0  # weight of the squared log normaliser of a categorical softmax (PaLM: 1e-4)
    c.denoiser_target = "none"  # xor | x0 of bits
    c.diffusion_steps = 0  # of a diffusion head or of "joint"
    c.diffusion_schedule = "none"  # linear | cosine, of Gaussian diffusion
    c.diffusion_repeats = 1  # times that a step draws for each token of a Gaussian head
    c.rotary_base = 10000.0
    c.norm_epsilon = 1e-5
    c.class_dropout = 0.1  # probability of the null class in training
    c.embedding_dropout = 0.0
    c.residual_dropout = 0.0
    c.mlp_dropout = 0.0
    c.init = "mup"  # mup | completep | normal: see lab/layers/parameters.py
    c.init_std = 0.02  # of "normal"; of the embeddings under all
    return c


def optimizer() -> ConfigDict:
    """AdamW, its schedule, its rule for widths."""
    c = ConfigDict()
    c.learning_rate = 0.01  # at base_width under "mup"; of every parameter under "none"
    c.width_rule = "mup"  # mup | none
    c.base_width = 32  # features; the width at which the rule changes nothing
    c.depth_rule = "none"  # none | completep: see lab/layers/parameters.py
    c.base_depth = 2  # blocks; the depth at which that changes nothing
    c.beta1 = 0.9
    c.beta2 = 0.95
    c.epsilon = 1e-8
    c.weight_decay = 0.0  # matrices only; per unit of learning rate
    c.clip_norm = 1.0  # global gradient norm; 0: no clipping
    c.schedule = "wsd"  # wsd | cosine | constant
    c.warmup = "20 steps"  # a duration
    c.cooldown_fraction = 0.3  # of all steps; the last part of wsd
    c.final_fraction = 0.0  # of the peak rate, at the end of wsd and cosine
    c.ema_decay = 0.0  # 0: no average is kept
    return c


def train() -> ConfigDict:
    """How long, on what batches, what is written down."""
    c = ConfigDict()
    c.batch_size = 32  # images in a global batch
    c.duration = "1 epochs"  # steps | examples | epochs | tokens | flops | tokens_per_parameter
    c.log_every_steps = 20
    c.evaluate_every_steps = 0  # 0: at the end only
    c.evaluation_batch_size = 64  # images
    c.explode_factor = 3.0  # stop where the loss exceeds this many times that of knowing nothing
    c.bound_draws = 1  # draws an image where the validation number is an estimated bound
    c.guard = _guard()
    return c


def _guard() -> ConfigDict:
    """What happens to an update whose numbers are not finite or lie far above those before it."""
    c = ConfigDict()
    c.policy = "stop"  # stop | skip | rollback; "stop" sees only what is not finite or exploded
    c.window = 128  # updates that a new one is compared with, and in which skips are counted
    c.threshold = 10.0  # robust standard errors above their median
    c.most_skips = 8  # of the last `window` updates; rollbacks to one step: more, and the run ends
    c.rollback_steps = 100  # "rollback" returns to a multiple of it
    return c


def execution() -> ConfigDict:
    """How and where; none of it is in the identity."""
    c = ConfigDict()
    c.workdir = "runs"  # the folder of all studies
    c.layout = "ddp"  # a name from configs/layouts.py
    c.devices = 0  # 0: all
    c.tensor = 0  # devices along the layout's mesh axis "tensor"; 0: as the layout says
    c.replicas = 0  # copies of the state under "hsdp"; 0: as many as slices, 2 where there is one
    c.accumulation = 1  # parts that a training batch runs in, one after the other
    c.steps_per_dispatch = 1  # updates in one program: more where a host starts them too slowly
    c.head_chunks = 0  # parts that a softmax over codes runs in; 0: as memory asks for
    c.remat = "none"  # none | full | attention_out | block_outputs | projections | dots | offload
    c.unroll_layers = False  # one loop body a layer: slower to compile, faster on CPU
    c.compute_dtype = "auto"  # auto | float32 | bfloat16; auto: bfloat16 on TPU and GPU
    c.checkpoint_every_steps = 200
    c.checkpoint_every_minutes = 0.0  # beside those, this long after the last one; 0: off
    c.local_checkpoints = ""  # a folder on each host's own disk for near checkpoints; "": none
    c.local_checkpoint_every_steps = 0  # steps between those
    c.keep_last = 2  # checkpoints
    c.keep_every_steps = 0  # 0: none is kept for good
    c.branches = ""  # of a constant rate: durations, comma-separated, whose cooldown begins here
    c.trunk = ""  # of wsd: the duration of the constant-rate run that its first part is taken from
    c.tensorboard = False  # write event files too (needs the tensorboard extra)
    c.attention_spectra = False  # evaluations say how concentrated W_q W_k^T is (Llama blocks)
    return c
