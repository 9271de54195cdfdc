"""umt5.*: prompts through ComfyUI's UMT5 (tokenizer by the sentencepiece package, T5 class with masks, padding zeroed), tiny, checked with
transformers' UMT5EncoderModel. The SentencePiece model is trained here on a few sentences of our own, with bytes as a way out; it lies in the
dump as `spiece_model`. COMFYUI_DIR: ComfyUI 0.3.64."""
import io

import comfy_env

comfy_env.import_comfy()
import sentencepiece
import torch
from transformers import UMT5Config, UMT5EncoderModel
import comfy.ops
from comfy.text_encoders.spiece_tokenizer import SPieceTokenizer
from comfy.text_encoders.t5 import T5

import tiny_models as tiny
from comfy_env import save
from make_text import t5_names

SENTENCES = ["a small boat drifts over the quiet lake", "the old tower stands on a hill above the town", "two children run along the beach at dusk",
             "ein Vogel singt im Garten", "the lake mirrors the tower and the boat", "a garden full of birds", "quiet evening light over the town"]
PROMPTS = ["a boat on the lake", "", "Zwei Vögel  singen\nim Garten 🏡", "雨の夜", "  the tower, old stands: 12 birds!  "]
SHORTEST = 24


def trained():
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(SENTENCES * 20), model_writer=out, vocab_size=360, model_type="unigram", byte_fallback=True,
                                             pad_id=0, eos_id=1, unk_id=2, bos_id=-1, hard_vocab_limit=False, minloglevel=2)
    return out.getvalue()


@torch.no_grad()
def main():
    model = trained()
    tokenizer = SPieceTokenizer(torch.frombuffer(bytearray(model), dtype=torch.uint8))
    size = tokenizer.tokenizer.get_piece_size()
    shapes = t5_names("", 32, 24, 3, 40, 3, size)
    for i in (1, 2):
        shapes[f"encoder.block.{i}.layer.0.SelfAttention.relative_attention_bias.weight"] = [32, 3]
    state = tiny.weights(shapes)
    config = dict(d_ff=40, d_kv=8, d_model=32, num_heads=3, num_layers=3, vocab_size=size, dense_act_fn="gelu_pytorch_tanh", is_gated_act=True, model_type="umt5")
    ours = T5(config, torch.float32, "cpu", comfy.ops.disable_weight_init)
    ours.load_state_dict(state)
    theirs = UMT5EncoderModel(UMT5Config(vocab_size=size, d_model=32, d_kv=8, d_ff=40, num_layers=3, num_heads=3, feed_forward_proj="gated-gelu"))
    theirs.load_state_dict({**state, "encoder.embed_tokens.weight": state["shared.weight"]})
    theirs.eval()
    out, cases = {"spiece_model": torch.frombuffer(bytearray(model), dtype=torch.uint8).clone()}, []
    for i, prompt in enumerate(PROMPTS):
        ids = tokenizer(prompt)["input_ids"]
        full = ids + [0] * (SHORTEST - len(ids))
        mask = torch.tensor([[1.0] * len(ids) + [0.0] * (len(full) - len(ids))])
        states = ours(torch.tensor([full]), mask)[0] * mask.unsqueeze(-1)
        other = theirs(input_ids=torch.tensor([full]), attention_mask=mask).last_hidden_state * mask.unsqueeze(-1)
        assert torch.allclose(states, other, atol=5e-5), (states - other).abs().max()
        out[f"states.{i}"] = states
        cases.append({"prompt": prompt, "ids": ids})
    save("umt5", out, {**tiny.manifest(shapes), "cases": cases, "shortest": SHORTEST})


if __name__ == "__main__":
    main()
