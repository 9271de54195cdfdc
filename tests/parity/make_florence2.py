"""florence2: a tiny Florence-2 by transformers' own Florence2ForConditionalGeneration, part by part, and what it writes about
50 pictures for every task; its tokenizer (BartTokenizerFast), its pictures (CLIPImageProcessor) and, where $FLORENCE2_PROCESSOR
names the processing_florence2.py of a published model folder, what that makes of answers.

The folder florence2/ holds the tiny model's own files but its weights, which are made from names and shapes.
"""
import hashlib
import importlib.util
import json
import os
import zlib

import numpy as np
import torch
from PIL import Image, ImageDraw
from tokenizers import ByteLevelBPETokenizer
from transformers import BartTokenizerFast, CLIPImageProcessor, Florence2Config, Florence2ForConditionalGeneration, set_seed

import comfy_env
import tiny_models as tiny

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)

HERE = comfy_env.HERE
FOLDER = os.path.join(HERE, "florence2")
WIDTHS, HEADS, GROUPS, DEPTHS, WINDOW, POSITIONS = [16, 32, 48, 64], [2, 2, 3, 4], [4, 2, 3, 2], [1, 1, 2, 1], 3, 6
WIDTH, LAYERS, TEXT_HEADS, MLP, PLACES = 32, 2, 4, 64, 96
TASKS = ["OD", "DENSE_REGION_CAPTION", "REGION_PROPOSAL", "CAPTION", "DETAILED_CAPTION", "MORE_DETAILED_CAPTION",
         "CAPTION_TO_PHRASE_GROUNDING", "REFERRING_EXPRESSION_SEGMENTATION", "OCR", "OCR_WITH_REGION", "DocVQA", "GENERATE_TAGS",
         "MIXED_CAPTION", "ANALYZE", "MIXED_CAPTION_PLUS"]
# What the model is asked for each; other tasks are asked by their names.
SENTENCES = {
    "OCR": "What is the text in the image?",
    "OCR_WITH_REGION": "What is the text in the image, with regions?",
    "CAPTION": "What does the image describe?",
    "DETAILED_CAPTION": "Describe in detail what is shown in the image.",
    "MORE_DETAILED_CAPTION": "Describe with a paragraph what is shown in the image.",
    "OD": "Locate the objects with category name in the image.",
    "DENSE_REGION_CAPTION": "Locate the objects in the image, with their descriptions.",
    "REGION_PROPOSAL": "Locate the region proposals in the image.",
    "CAPTION_TO_PHRASE_GROUNDING": "Locate the phrases in the caption: {}",
    "REFERRING_EXPRESSION_SEGMENTATION": "Locate {} in the image with mask",
}
WITH_TEXT = ["CAPTION_TO_PHRASE_GROUNDING", "REFERRING_EXPRESSION_SEGMENTATION", "DocVQA"]
ADDED = (["<od>", "</od>", "<ocr>", "</ocr>"] + [f"<loc_{i}>" for i in range(1000)] +
         ["<cap>", "</cap>", "<ncap>", "</ncap>", "<dcap>", "</dcap>", "<grounding>", "</grounding>", "<seg>", "</seg>", "<sep>",
          "<region_cap>", "</region_cap>", "<region_to_desciption>", "</region_to_desciption>", "<proposal>", "</proposal>",
          "<poly>", "</poly>", "<and>"])


def question(task, text=""):
    token = f"<{task}>"
    prompt = f"{token} {text}" if text else token
    return SENTENCES[task].format(prompt.replace(token, "")) if task in SENTENCES else prompt


def make_vocabulary():
    """vocab.json and merges.txt, whose numbers are in no order, as BART's are."""
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator([*SENTENCES.values(), "a red car, it's the cat's"] * 4, vocab_size=256 + 60, min_frequency=2)
    trained.save_model(FOLDER)
    with open(os.path.join(FOLDER, "vocab.json"), encoding="utf-8") as f:
        names = sorted(json.load(f), key=lambda name: zlib.crc32(name.encode()))
    vocabulary = {name: i for i, name in enumerate(["<s>", "<pad>", "</s>", "<unk>", *names, "<mask>"])}
    with open(os.path.join(FOLDER, "vocab.json"), "w", encoding="utf-8") as f:
        json.dump(vocabulary, f, ensure_ascii=True)
        f.write("\n")


def make_tokenizer():
    tokenizer = BartTokenizerFast(os.path.join(FOLDER, "vocab.json"), os.path.join(FOLDER, "merges.txt"))
    tokenizer.add_special_tokens({"additional_special_tokens": ADDED})
    return tokenizer


def make_config(vocabulary):
    text = dict(vocab_size=vocabulary, d_model=WIDTH, encoder_layers=LAYERS, decoder_layers=LAYERS, encoder_attention_heads=TEXT_HEADS,
                decoder_attention_heads=TEXT_HEADS, encoder_ffn_dim=MLP, decoder_ffn_dim=MLP, max_position_embeddings=PLACES,
                activation_function="gelu", scale_embedding=False, bos_token_id=0, pad_token_id=1, eos_token_id=2, forced_bos_token_id=0,
                forced_eos_token_id=2, decoder_start_token_id=2, early_stopping=True, no_repeat_ngram_size=3, num_beams=3)
    vision = dict(model_type="davit", patch_size=[7, 3, 3, 3], patch_stride=[4, 2, 2, 2], patch_padding=[3, 1, 1, 1],
                  patch_prenorm=[False, True, True, True], dim_embed=WIDTHS, num_heads=HEADS, num_groups=GROUPS, depths=DEPTHS,
                  window_size=WINDOW, projection_dim=WIDTH, visual_temporal_embedding={"type": "COSINE", "max_temporal_embeddings": 4},
                  image_pos_embed={"type": "learned_abs_2d", "max_pos_embeddings": POSITIONS},
                  image_feature_source=["spatial_avg_pool", "temporal_avg_pool"])
    with open(os.path.join(FOLDER, "config.json"), "w", encoding="utf-8") as f:
        json.dump({"model_type": "florence2", "text_config": text, "vision_config": vision}, f, indent=1)
        f.write("\n")
    theirs = {"embed_dim": WIDTHS, **{k: vision[k] for k in ("patch_size", "patch_stride", "patch_padding", "patch_prenorm", "num_heads",
                                                             "num_groups", "depths", "window_size", "projection_dim")},
              "max_position_embeddings": POSITIONS, "max_temporal_embeddings": 4, "drop_path_rate": 0.0}
    return Florence2Config(text_config={"model_type": "bart", **text}, vision_config=theirs, image_token_id=vocabulary - 1)


def shapes_of(vocabulary):
    """The names of the published checkpoints."""
    n = tiny.Names()
    for i, width in enumerate(WIDTHS):
        into = WIDTHS[i - 1] if i else 3
        n.conv(f"vision_tower.convs.{i}.proj", width, into, 3 if i else 7)
        n.norm(f"vision_tower.convs.{i}.norm", into if i else width)
        for j in range(DEPTHS[i]):
            for kind, attention in (("spatial_block", "window_attn"), ("channel_block", "channel_attn")):
                b = f"vision_tower.blocks.{i}.{j}.{kind}."
                n.conv(b + "conv1.fn.dw", width, 1, 3)
                n.norm(b + attention + ".norm", width)
                n.linear(b + attention + ".fn.qkv", 3 * width, width)
                n.linear(b + attention + ".fn.proj", width, width)
                n.conv(b + "conv2.fn.dw", width, 1, 3)
                n.norm(b + "ffn.norm", width)
                n.linear(b + "ffn.fn.net.fc1", 4 * width, width)
                n.linear(b + "ffn.fn.net.fc2", width, 4 * width)
    n.add("image_projection", WIDTHS[-1], WIDTH)
    n.norm("image_proj_norm", WIDTH)
    n.add("image_pos_embed.row_embeddings.weight", POSITIONS, WIDTHS[-1] // 2)
    n.add("image_pos_embed.column_embeddings.weight", POSITIONS, WIDTHS[-1] // 2)
    n.add("language_model.model.shared.weight", vocabulary, WIDTH)
    for half in ("encoder", "decoder"):
        m = f"language_model.model.{half}."
        n.add(m + "embed_positions.weight", PLACES + 2, WIDTH)
        n.norm(m + "layernorm_embedding", WIDTH)
        for i in range(LAYERS):
            b = f"{m}layers.{i}."
            for attention in ("self_attn", "encoder_attn")[:1 if half == "encoder" else 2]:
                for p in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    n.linear(f"{b}{attention}.{p}", WIDTH, WIDTH)
                n.norm(f"{b}{attention}_layer_norm", WIDTH)
            n.linear(b + "fc1", MLP, WIDTH)
            n.linear(b + "fc2", WIDTH, MLP)
            n.norm(b + "final_layer_norm", WIDTH)
    return n.shapes


def their_name(name):
    for ours, theirs in (("language_model.model.", "model.language_model."), ("image_projection", "model.multi_modal_projector.image_projection.weight"),
                         ("image_proj_norm", "model.multi_modal_projector.image_proj_norm"),
                         ("image_pos_embed", "model.multi_modal_projector.image_position_embed"), ("vision_tower.", "model.vision_tower.")):
        if name.startswith(ours):
            name = theirs + name[len(ours):]
    if ".convs." in name:
        return name.replace(".proj.", ".conv.")
    for ours, theirs in (("conv1.fn.dw", "conv1"), ("conv2.fn.dw", "conv2"), ("window_attn.norm", "norm1"), ("channel_attn.norm", "norm1"),
                         ("ffn.norm", "norm2"), ("_attn.fn.", "_attn."), ("ffn.fn.net.", "ffn.")):
        name = name.replace(ours, theirs)
    return name


def load(model, state):
    theirs = {their_name(name): value for name, value in state.items()}
    key = "model.multi_modal_projector.image_projection.weight"
    theirs[key] = theirs[key].t().contiguous()
    table = theirs["model.language_model.shared.weight"]
    for name in ("model.language_model.encoder.embed_tokens.weight", "model.language_model.decoder.embed_tokens.weight", "lm_head.weight"):
        theirs[name] = table
    missing, unexpected = model.load_state_dict(theirs, strict=False)
    assert not unexpected, unexpected
    assert all("pos_idx_to_embed" in name for name in missing), missing


def picture(i):
    return tiny.weight(f"picture/{i}", [1, 3, 64, 64]) * 100


TOKENS = 1 + 2 * 2  # of a picture of 64 x 64


def prompt_ids(tokenizer, image_token, task, text):
    return torch.tensor([[image_token] * TOKENS + tokenizer(question(task, text))["input_ids"]])


# Tokens that end a text: the model's own, and some that it writes often.
ENDS = [2, 471, 90, 147]
TEXTS = ["a red car", "the cat's ear", "Grüße, 12 dogs", "an image"]


def seed_of(seed):
    return int(hashlib.sha256(str(seed).encode()).hexdigest(), 16) % 2**32


def written(model, ids, pixels, **options):
    answer = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels, **options)
    return answer[0].tolist()


def crc_of(ids):
    return zlib.crc32(" ".join(map(str, ids)).encode())


def make_answers(model, tokenizer, image_token):
    """Every task about 50 pictures with beams; other ways of writing about some."""
    answers = {"ends": ENDS, "beams": [], "whole": []}
    for i in range(50):
        text, end = TEXTS[i % len(TEXTS)], ENDS[i % len(ENDS)]
        for task in TASKS:
            ids = prompt_ids(tokenizer, image_token, task, text if task in WITH_TEXT else "")
            answers["beams"].append(crc_of(written(model, ids, picture(i), max_new_tokens=10, num_beams=3, do_sample=False,
                                                   eos_token_id=end)))
    ways = [dict(num_beams=1, do_sample=False, max_new_tokens=40), dict(num_beams=3, do_sample=False, max_new_tokens=60),
            dict(num_beams=1, do_sample=True, max_new_tokens=30), dict(num_beams=3, do_sample=True, max_new_tokens=30),
            dict(num_beams=5, do_sample=False, max_new_tokens=1), dict(num_beams=2, do_sample=True, max_new_tokens=2)]
    for i, way in enumerate(ways * 4):
        task, text = TASKS[i % len(TASKS)], TEXTS[i % len(TEXTS)]
        ids = prompt_ids(tokenizer, image_token, task, text if task in WITH_TEXT else "")
        end = ENDS[i // len(ways)]
        set_seed(seed_of(i + 1))
        answers["whole"].append({"picture": i, "task": task, "text": text if task in WITH_TEXT else "", "random": seed_of(i + 1), "end": end, **way,
                                 "ids": written(model, ids, picture(i), eos_token_id=end, **way)})
    return answers


@torch.inference_mode()
def parts(model, tokenizer, image_token):
    pixels = picture(0)
    dump = {"tower": model.model.vision_tower(pixels), "features": model.get_image_features(pixels)}
    wide = tiny.weight("wide", [1, 3, 96, 128]) * 100
    dump["features/wide"] = model.get_image_features(wide)
    ids = prompt_ids(tokenizer, image_token, "CAPTION", "")
    words = model.get_input_embeddings()(ids[:, TOKENS:])
    encoded = model.get_encoder()(inputs_embeds=torch.cat([dump["features"], words], 1)).last_hidden_state
    dump["encoded"] = encoded
    from transformers.modeling_outputs import BaseModelOutput
    given = torch.tensor([[2, 0, 17, 300, 5, 1000]])
    logits = model(encoder_outputs=BaseModelOutput(encoded), decoder_input_ids=given).logits
    dump["logits"] = logits[0, :, ::5]
    return dump, ids[0, TOKENS:].tolist(), given[0].tolist()


def token_cases(tokenizer):
    texts = ["", " ", "a  b", "  a", "a\n\nb \n", "It's THE cat's 123rd 'll<loc_5>x <loc_1000>", "<s>a</s>", "a  <mask> b", "naïve Grüße 東京 🙂",
             "x\u00a0y\u3000z", "a\tb\r\nc", "'s't'S", "½²3٣", "e\u0301", *(question(t, TEXTS[0]) for t in TASKS if t in WITH_TEXT)]
    return [[t, tokenizer(t, add_special_tokens=False)["input_ids"]] for t in texts]


def text_cases(tokenizer):
    rng = np.random.default_rng(3)
    cases = [rng.integers(0, len(tokenizer), 12).tolist() for _ in range(30)] + [[0, 2, 5], []]
    return [[ids, tokenizer.decode(ids, skip_special_tokens=False)] for ids in cases]


def picture_cases(dump):
    processor = CLIPImageProcessor(do_resize=True, size={"height": 768, "width": 768}, resample=3, do_center_crop=False, do_rescale=True,
                                   do_normalize=True, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])
    for name, size in (("small", (30, 41)), ("large", (900, 768))):
        values = torch.rand([*size, 3], generator=torch.Generator().manual_seed(len(name)))
        shown = Image.fromarray(values.mul(255).byte().numpy())
        dump[f"pixels/{name}"] = processor(shown, return_tensors="pt")["pixel_values"][0, :, ::41, ::37]


ANSWERS = [
    ("OD", "</s><s>car<loc_10><loc_20><loc_500><loc_999>big cat<loc_1><loc_2><loc_3><loc_4><loc_5><loc_6><loc_7><loc_8></s>"),
    ("OD", "</s><s>nothing here</s>"), ("OD", "</s><s>caf\u00e9 <loc_1><loc_2><loc_3></s>"),
    ("DENSE_REGION_CAPTION", "</s><s> a man  in red<loc_400><loc_300><loc_200><loc_100></s>"),
    ("REGION_PROPOSAL", "</s><s><loc_5><loc_6><loc_7><loc_8><loc_9><loc_10><loc_11><loc_12><loc_13></s>"),
    ("CAPTION_TO_PHRASE_GROUNDING", "</s><s>A red car<loc_1><loc_2><loc_30><loc_40><loc_5><loc_6><loc_70><loc_80>it<loc_1><loc_2><loc_3><loc_4>the caf\u00e9<loc_0><loc_0><loc_999><loc_999></s>"),
    ("REFERRING_EXPRESSION_SEGMENTATION", "</s><s><loc_10><loc_10><loc_900><loc_20><loc_500><loc_800><sep><loc_1><loc_2><loc_3><loc_4><loc_5></s>"),
    ("REFERRING_EXPRESSION_SEGMENTATION", "</s><s><poly><loc_10><loc_10><loc_900><loc_20><loc_500><loc_800></poly><poly><loc_1><loc_2><loc_3><loc_4><loc_5><loc_6></poly></s>"),
    ("OCR_WITH_REGION", "</s><s>STOP<loc_1><loc_2><loc_3><loc_4><loc_5><loc_6><loc_7><loc_8>&go now<loc_10><loc_20><loc_300><loc_20><loc_300><loc_400><loc_10><loc_400></s>"),
    ("OCR_WITH_REGION", "</s><s>no place</s>"), ("CAPTION", "</s><s>A cat.</s><pad>"),
]


def answer_cases():
    path = os.environ.get("FLORENCE2_PROCESSOR")
    if not path:
        raise SystemExit("set FLORENCE2_PROCESSOR to the processing_florence2.py of a model folder")
    spec = importlib.util.spec_from_file_location("processing_florence2", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    processor = module.Florence2Processor.__new__(module.Florence2Processor)
    processor.tasks_answer_post_processing_type = {
        "<OCR_WITH_REGION>": "ocr", "<OD>": "description_with_bboxes", "<DENSE_REGION_CAPTION>": "description_with_bboxes",
        "<CAPTION_TO_PHRASE_GROUNDING>": "phrase_grounding", "<REFERRING_EXPRESSION_SEGMENTATION>": "polygons", "<REGION_PROPOSAL>": "bboxes"}
    processor.post_processor = module.Florence2PostProcesser()
    return [{"task": task, "text": text, "size": [640, 355],
             "answer": processor.post_process_generation(text, task=f"<{task}>", image_size=(640, 355))[f"<{task}>"]} for task, text in ANSWERS]


def drawing_cases():
    """Pillow's filled shapes: the numbers of white pixels row by row, and the polygons."""
    rng = np.random.default_rng(5)
    cases = []
    for i in range(12):
        points = [[10.3, 5.7, 40.2, 8.1, 35.9, 30.5, 12.0, 28.0], [50.5, 3.0, 20.1, 35.2, 60.9, 35.2]][i] if i < 2 else (
            rng.uniform(0, 1, int(rng.integers(3, 9)) * 2) * 63).round(3).tolist()
        mask = Image.new("L", (64, 40), 0)
        ImageDraw.Draw(mask).polygon([min(v, 39) if j % 2 else v for j, v in enumerate(points)], outline=255, fill=255)
        cases.append({"points": [min(v, 39) if j % 2 else v for j, v in enumerate(points)],
                      "rows": ["".join("#" if v else "." for v in row) for row in np.array(mask)]})
    return cases


def main():
    os.makedirs(FOLDER, exist_ok=True)
    make_vocabulary()
    tokenizer = make_tokenizer()
    vocabulary = len(tokenizer) + 3
    model = Florence2ForConditionalGeneration(make_config(vocabulary)).eval()
    shapes = shapes_of(vocabulary)
    load(model, tiny.weights(shapes))
    model.generation_config.update(decoder_start_token_id=2, forced_bos_token_id=0, forced_eos_token_id=2, eos_token_id=2, pad_token_id=1,
                                   bos_token_id=0, no_repeat_ngram_size=3, early_stopping=True)
    dump, ids, given = parts(model, tokenizer, vocabulary - 1)
    picture_cases(dump)
    comfy_env.save("florence2", dump, {
        **tiny.manifest(shapes), "ids": ids, "given": given, "tokens": token_cases(tokenizer), "texts": text_cases(tokenizer),
        "questions": {task: question(task, "x" if task in WITH_TEXT else "") for task in TASKS},
        "answers": answer_cases(), "polygons": drawing_cases()})
    path = os.path.join(HERE, "florence2_answers.json")
    with open(path, "w", encoding="utf-8") as f:
        json.dump(make_answers(model, tokenizer, vocabulary - 1), f)
        f.write("\n")
    print(os.path.getsize(path), os.path.getsize(os.path.join(HERE, "florence2.json")))


if __name__ == "__main__":
    main()
