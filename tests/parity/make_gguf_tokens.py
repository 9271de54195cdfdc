"""umt5_tokens.gguf, gguf_tokens.json: a SentencePiece model (that of umt5.safetensors) as the header of a GGUF file describes it, and the ids that
ComfyUI makes of prompts with what ComfyUI-GGUF makes of that header. COMFYUI_DIR: ComfyUI 0.3.64; GGUF_NODES_DIR: the node package ComfyUI-GGUF;
needs the packages gguf, sentencepiece and protobuf."""
import importlib.util
import json
import os
import sys

import comfy_env

comfy_env.import_comfy()
import gguf
import numpy
import safetensors.torch
import sentencepiece
from comfy.text_encoders.spiece_tokenizer import SPieceTokenizer

PROMPTS = ["a boat on the lake", "", "Zwei Vögel  singen\nim Garten 🏡", "雨の夜", "  the tower, old stands: 12 birds!  ", "ｆｕｌｌ ﬁt ½"]


def package():
    path = os.environ["GGUF_NODES_DIR"]
    spec = importlib.util.spec_from_file_location("comfyui_gguf", os.path.join(path, "__init__.py"), submodule_search_locations=[path])
    sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[spec.name])
    return sys.modules["comfyui_gguf.loader"]


def write(path):
    model = bytes(safetensors.torch.load_file(os.path.join(comfy_env.HERE, "umt5.safetensors"))["spiece_model"].numpy())
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    count = range(pieces.get_piece_size())
    kinds = [2 if pieces.is_unknown(i) else 3 if pieces.is_control(i) else 6 if pieces.is_byte(i) else 5 if pieces.is_unused(i) else 1 for i in count]
    writer = gguf.GGUFWriter(path, "t5encoder")
    writer.add_tokenizer_model("t5")
    writer.add_token_list([pieces.id_to_piece(i) for i in count])
    writer.add_token_scores([pieces.get_score(i) for i in count])
    writer.add_token_types(kinds)
    writer.add_add_space_prefix(True)
    writer.add_remove_extra_whitespaces(True)
    writer.add_eos_token_id(pieces.eos_id())
    writer.add_pad_token_id(pieces.pad_id())
    writer.add_tensor("enc.output_norm.weight", numpy.ones(32, numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


path = os.path.join(comfy_env.HERE, "umt5_tokens.gguf")
write(path)
tokenizer = SPieceTokenizer(package().gguf_tokenizer_loader(path, (256384, 4096)))
with open(os.path.join(comfy_env.HERE, "gguf_tokens.json"), "w", encoding="utf-8") as file:
    json.dump({"cases": [{"prompt": prompt, "ids": tokenizer(prompt)["input_ids"]} for prompt in PROMPTS]}, file)
    file.write("\n")
