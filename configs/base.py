"""Every field of a run. A family's config starts from here and changes what it must."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The resolved defaults; `lab.core.config` states the type and the range of each field."""
    c = ConfigDict()
    c.name = ""  # a label for tables; not part of the identity
    c.study = "default"  # the folder that runs compared with each other share; not in the identity
    c.seed = 0  # initial parameters, data order, dropout

    c.data = ConfigDict()
    c.data.name = "dead_leaves"  # a file of lab/data, or any TFDS image data set
    c.data.train_examples = 0  # images; 0: the whole split
    c.data.validation_examples = 1024  # images; the same ones for every run of a study
    c.data.train_split = "train"
    c.data.validation_split = "validation"
    c.data.manual_dir = ""  # where files that TFDS can not download lie; "": TFDS_MANUAL_DIR
    c.data.data_dir = ""  # where prepared data lie; "": TFDS_DATA_DIR, else .cache/tfds

    c.tokenizer = ConfigDict()
    c.tokenizer.name = "pixels"  # a file of lab/tokenizers
    c.tokenizer.resolution = 8  # pixels along a side after area down-scaling
    c.tokenizer.channels = "rgb"  # grey | rgb
    c.tokenizer.levels = 16  # quantisation levels of a sub-pixel

    c.model = ConfigDict()
    c.model.family = "elm"
    c.model.size = "s1"  # a name from the family's table, for the record
    c.model.embedding = "subcodes"
    c.model.order = "raster"
    c.model.head = "categorical"
    c.model.depth = 0  # blocks; 0 here and in the next three: as the named size says
    c.model.width = 0  # features of the residual stream
    c.model.heads = 0
    c.model.mlp_hidden = 0  # features inside SwiGLU
    c.model.subcodes = 1  # t of the t-k split: sub-codes at one position
    c.model.rotary_base = 10000.0
    c.model.norm_epsilon = 1e-5
    c.model.class_dropout = 0.1  # probability of the null class in training
    c.model.embedding_dropout = 0.0
    c.model.residual_dropout = 0.0
    c.model.mlp_dropout = 0.0
    c.model.init = "mup"  # mup | normal: see lab/layers/parameters.py
    c.model.init_std = 0.02  # of "normal"; of the embeddings also under "mup"

    c.optimizer = ConfigDict()
    c.optimizer.learning_rate = 0.01  # at base_width under "mup"; of every parameter under "none"
    c.optimizer.width_rule = "mup"  # mup | none
    c.optimizer.base_width = 32  # features; the width at which the rule changes nothing
    c.optimizer.beta1 = 0.9
    c.optimizer.beta2 = 0.95
    c.optimizer.epsilon = 1e-8
    c.optimizer.weight_decay = 0.0  # matrices only; per unit of learning rate
    c.optimizer.clip_norm = 1.0  # global gradient norm; 0: no clipping
    c.optimizer.schedule = "wsd"  # wsd | cosine | constant
    c.optimizer.warmup = "20 steps"  # a duration
    c.optimizer.cooldown_fraction = 0.3  # of all steps; the last part of wsd
    c.optimizer.final_fraction = 0.0  # of the peak rate, at the end of wsd and cosine
    c.optimizer.ema_decay = 0.0  # 0: no average is kept

    c.train = ConfigDict()
    c.train.batch_size = 32  # images in a global batch
    c.train.duration = "1 epochs"  # steps | examples | epochs | tokens | flops
    c.train.log_every_steps = 20
    c.train.evaluate_every_steps = 0  # 0: at the end only
    c.train.evaluation_batch_size = 64  # images
    c.train.explode_factor = 3.0  # stop where the loss exceeds this many times that of uniform

    c.execution = ConfigDict()  # how and where; none of it is in the identity
    c.execution.workdir = "runs"
    c.execution.layout = "ddp"  # a name from configs/layouts.py
    c.execution.devices = 0  # 0: all
    c.execution.remat = "none"  # none | full | dots
    c.execution.unroll_layers = False  # one loop body a layer: slower to compile, faster on CPU
    c.execution.compute_dtype = "auto"  # auto | float32 | bfloat16; auto: bfloat16 on TPU and GPU
    c.execution.checkpoint_every_steps = 200
    c.execution.keep_last = 2  # checkpoints
    c.execution.keep_every_steps = 0  # 0: none is kept for good
    c.execution.tensorboard = False  # write event files too (needs the tensorboard extra)
    return c
