"""Write a tiny Llama without weights to a folder: config, tokenizer, chat template.

vLLM fills it with random weights (--load-format dummy). Every token but a few
special ones is printable ASCII, so that random output is visible text; a byte
tokenizer would give halves of characters, which vLLM holds back.
"""

import json
import pathlib
import string
import sys

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


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    made = tokenizer()
    made.save(str(folder / "tokenizer.json"))
    write = lambda name, value: (folder / name).write_text(json.dumps(value, indent=1))
    write("tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>",
        "model_max_length": CONTEXT,
        "chat_template": "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:",
    })
    write("config.json", {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32,
        "vocab_size": made.get_vocab_size(), "max_position_embeddings": CONTEXT,
        "bos_token_id": 1, "eos_token_id": 2, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False, "dtype": "float32",
    })
    print(f"{folder}: {made.get_vocab_size()} tokens")


main(pathlib.Path(sys.argv[1]))
