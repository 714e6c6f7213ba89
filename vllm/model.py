"""Write a tiny Llama to a folder: configuration, random weights, tokenizer.

vLLM's own random weights (--load-format dummy) are so small that every token is
as likely as any other, whatever the prompt. These depend on it, and are the same
every time. Every token but a few special ones is printable ASCII, so that random
output is visible text; a byte tokenizer would give halves of characters, which
vLLM holds back.
"""

import json
import pathlib
import string
import sys

import numpy
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY = 1024
CONTEXT = 2048
WORDS = """
the a one some every no this that of in on at by for with from to and or but as is was be has had can will
not so then when where who what which how people time day year way work world life hand part place case week
company system program question government number night point home water room mother area money story fact
month lot right study book eye job word business issue side kind head house service friend father power hour
game line end member law car city community name president team minute idea body information back parent face
others level office door health person art war history party result change morning reason research girl guy
moment air teacher force education foot boy age policy music process market sense nation plan college interest
death experience effect use class control care field development role effort rate heart drug show leader light
voice wife police mind price report decision son view relationship town road arm difference value building
action season society tax director position player record paper space ground form event official matter center
couple site project activity star table need court oil situation cost industry figure street image phone data
picture practice piece land product doctor wall patient worker news test movie north love support technology
"""


def tokenizer():
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    # In the byte-level alphabet Ġ is a space and Ċ a line's end.
    visible = list(string.ascii_letters + string.digits + string.punctuation) + ["Ġ", "Ċ"]
    special = ["<unk>", "<s>", "</s>"]
    text = [" " + word for word in WORDS.split() for _ in range(4)]
    made.train_from_iterator(
        text, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=visible, show_progress=False)
    )
    return made


def configuration(vocabulary):
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32,
        "vocab_size": vocabulary, "max_position_embeddings": CONTEXT,
        "bos_token_id": 1, "eos_token_id": 2, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False, "dtype": "float32",
    }


def weights(config):
    dice = numpy.random.default_rng(0)
    width, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]

    def normal(rows, columns, scale):
        return (scale * dice.standard_normal((rows, columns)) / columns**0.5).astype("float32")

    even = numpy.ones(width, "float32")
    made = {
        "model.embed_tokens.weight": normal(vocabulary, width, 8),
        "model.norm.weight": even,
        "lm_head.weight": normal(vocabulary, width, 3),  # the most likely token has some 30 %
    }
    square = {f"self_attn.{name}_proj": (width, width) for name in "qkvo"}
    for n in range(config["num_hidden_layers"]):
        layer = f"model.layers.{n}."
        shapes = {**square, "mlp.gate_proj": (inner, width), "mlp.up_proj": (inner, width), "mlp.down_proj": (width, inner)}
        for name, (rows, columns) in shapes.items():
            made[f"{layer}{name}.weight"] = normal(rows, columns, 2)
        made[f"{layer}input_layernorm.weight"] = made[f"{layer}post_attention_layernorm.weight"] = even
    return made


def main(folder):
    # An engine that is just starting may be reading an earlier one: once made,
    # a model stays, until this file changes.
    mark, source = folder / "made-by.txt", pathlib.Path(__file__).read_text()
    if mark.exists() and mark.read_text() == source:
        return
    folder.mkdir(parents=True, exist_ok=True)
    made = tokenizer()
    made.save(str(folder / "tokenizer.json"))
    config = configuration(made.get_vocab_size())
    save_file(weights(config), folder / "model.safetensors")
    write = lambda name, value: (folder / name).write_text(json.dumps(value, indent=1))
    write("config.json", config)
    write("tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>",
        "model_max_length": CONTEXT,
        "chat_template": "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:",
    })
    mark.write_text(source)


main(pathlib.Path(sys.argv[1]))
