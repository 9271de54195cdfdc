"""object_info_reference.json: the signatures of the nodes that distorch has, as a ComfyUI server shows them.

    python make_object_info_reference.py OBJECT_INFO.json NEWER_OBJECT_INFO.json PACKS_OBJECT_INFO.json...

OBJECT_INFO.json is the answer of GET /object_info of ComfyUI 0.3.64 with the MultiGPU add-on, on a machine without models and
accelerators, NEWER_OBJECT_INFO.json that of 0.33 for nodes that came later; what only its page asks for is left out; PACKS_OBJECT_INFO.json
those of add-ons (VideoHelperSuite, rgthree, Florence2, LTX-Video's, MMAudio's, PuLID's and helper nodes). A node that is
new here is added to NODES or NEWER. Descriptions and tooltips are left out: ours are our own words.
"""
import json
import os
import sys

VARIANTS = ["CheckpointLoaderSimple", "UNETLoader", "CLIPLoader", "DualCLIPLoader", "VAELoader", "ControlNetLoader",
            "DiffControlNetLoader"]
NODES = [*VARIANTS, *(n + "MultiGPU" for n in VARIANTS), *(n + "DisTorch2MultiGPU" for n in VARIANTS),
         "DeviceSelectorMultiGPU", "CheckpointLoaderAdvancedMultiGPU", "CheckpointLoaderAdvancedDisTorch2MultiGPU",
         "LoraLoader", "LoraLoaderModelOnly", "CLIPTextEncode", "CLIPSetLastLayer",
         "ConditioningCombine", "ConditioningConcat", "ConditioningAverage", "ConditioningSetArea",
         "ConditioningSetAreaPercentage", "ConditioningSetAreaStrength", "ConditioningSetMask",
         "ConditioningSetTimestepRange", "ConditioningZeroOut", "InpaintModelConditioning",
         "SetUnionControlNetType", "ControlNetApply", "ControlNetApplyAdvanced", "ControlNetInpaintingAliMamaApply",
         "ControlNetApplySD3",
         "EmptyLatentImage", "LatentUpscale", "LatentUpscaleBy", "LatentFromBatch", "RepeatLatentBatch",
         "SetLatentNoiseMask", "SaveLatent", "LoadLatent",
         "VAEEncode", "VAEEncodeForInpaint", "VAEEncodeTiled", "VAEDecode", "VAEDecodeTiled",
         "LoadImage", "LoadImageMask", "SaveImage", "PreviewImage", "ImageScale", "ImageScaleBy", "ImageInvert",
         "KSampler", "KSamplerAdvanced", "CLIPTextEncodeSDXL", "CLIPTextEncodeSDXLRefiner",
         "CLIPTextEncodeFlux", "FluxGuidance", "FluxDisableGuidance", "FluxKontextImageScale", "ReferenceLatent",
         "InstructPixToPixConditioning", "CLIPTextEncodeSD3",
         "TextEncodeQwenImageEdit", "TextEncodeQwenImageEditPlus",
         "TripleCLIPLoader", "QuadrupleCLIPLoader",
         *(n + s for n in ("TripleCLIPLoader", "QuadrupleCLIPLoader") for s in ("MultiGPU", "DisTorch2MultiGPU")),
         "ImageBatch", "EmptyImage", "LoadImageOutput", "MaskPreview", "ImageCrop", "ImageFlip", "ImageRotate",
         "ImageStitch", "ResizeAndPadImage", "ImageScaleToMaxDimension", "ImageScaleToTotalPixels",
         "ImagePadForOutpaint", "GetImageSize", "RepeatImageBatch", "ImageFromBatch", "RebatchImages", "RebatchLatents",
         "ImageBlur", "ImageSharpen", "Morphology", "Canny", "ImageBlend", "ImageRGBToYUV", "ImageYUVToRGB",
         "ImageAddNoise", "ImageCompositeMasked", "LatentCompositeMasked", "LatentComposite",
         "PorterDuffImageComposite", "SplitImageWithAlpha", "JoinImageWithAlpha", "ImageColorToMask", "CropMask",
         "MaskComposite", "FeatherMask", "GrowMask", "ThresholdMask", "LatentAdd", "LatentSubtract", "LatentMultiply",
         "LatentInterpolate", "LatentConcat", "LatentCut", "LatentBatch", "LatentBatchSeedBehavior", "LatentFlip",
         "LatentRotate", "LatentCrop", "LatentBlend", "StringConcatenate", "StringSubstring", "StringLength",
         "CaseConverter", "StringTrim", "StringReplace", "StringContains", "StringCompare", "RegexMatch",
         "RegexExtract", "RegexReplace", "PreviewAny", "UpscaleModelLoader", "ImageUpscaleWithModel",
         *(n + s for n in ("CLIPVisionLoader", "DiffusersLoader") for s in ("", "MultiGPU", "DisTorch2MultiGPU")),
         "CLIPVisionEncode", "StyleModelLoader", "StyleModelApply", "unCLIPConditioning", "unCLIPCheckpointLoader", "SolidMask", "InvertMask", "ImageToMask", "MaskToImage",
         "ModelSamplingDiscrete", "ModelSamplingContinuousEDM", "ModelSamplingContinuousV", "ModelSamplingSD3",
         "ModelSamplingAuraFlow", "ModelSamplingFlux", "ModelSamplingStableCascade", "EmptySD3LatentImage", "RescaleCFG", "FreeU", "FreeU_V2",
         "ModelPatchLoader", "QwenImageDiffsynthControlnet",
         "EmptyHunyuanLatentVideo", "CLIPTextEncodeHunyuanDiT", "TextEncodeHunyuanVideo_ImageToVideo", "HunyuanImageToVideo",
         "EmptyHunyuanImageLatent", "HunyuanRefinerLatent", "EmptyLTXVLatentVideo", "LTXVImgToVideo", "ModelSamplingLTXV", "LTXVConditioning",
         "LTXVAddGuide", "LTXVPreprocess", "LTXVCropGuides", "WanImageToVideo", "WanFirstLastFrameToVideo", "WanFunInpaintToVideo", "WanFunControlToVideo",
         "Wan22ImageToVideoLatent", "TrimVideoLatent", "WanVaceToVideo", "Wan22FunControlToVideo", "WanCameraEmbedding",
         "WanCameraImageToVideo", "WanPhantomSubjectToVideo", "WanAnimateToVideo", "WanSoundImageToVideo", "WanSoundImageToVideoExtend", "AudioEncoderLoader", "AudioEncoderEncode",
         "ModelMergeSimple", "ModelMergeAdd", "ModelMergeSubtract",
         "SamplerCustom", "SamplerCustomAdvanced", "BasicGuider", "CFGGuider", "DualCFGGuider", "PerpNegGuider", "RandomNoise",
         "DisableNoise", "AddNoise", "KSamplerSelect", "SamplerEulerAncestral", "SamplerEulerAncestralCFGPP", "SamplerLMS",
         "SamplerDPMPP_3M_SDE", "SamplerDPMPP_2M_SDE", "SamplerDPMPP_SDE", "SamplerDPMPP_2S_Ancestral", "SamplerDPMAdaptative",
         "SamplerER_SDE", "SamplerSASolver", "SamplerEulerCFGpp", "BasicScheduler", "KarrasScheduler", "ExponentialScheduler",
         "PolyexponentialScheduler", "LaplaceScheduler", "VPScheduler", "BetaSamplingScheduler", "SDTurboScheduler",
         "AlignYourStepsScheduler", "OptimalStepsScheduler", "GITSScheduler", "LTXVScheduler", "SplitSigmas", "SplitSigmasDenoise",
         "FlipSigmas", "SetFirstSigma", "ExtendIntermediateSigmas", "SamplingPercentToSigma",
         "CFGNorm", "CFGZeroStar", "TCFG", "APG", "Epsilon Scaling", "RenormCFG", "Mahiro", "FreSca", "PerpNeg", "SkipLayerGuidanceSD3",
         "SkipLayerGuidanceDiT", "SkipLayerGuidanceDiTSimple", "PerturbedAttentionGuidance", "SelfAttentionGuidance", "DifferentialDiffusion", "EasyCache",
         "LazyCache", "LatentApplyOperation", "LatentApplyOperationCFG", "LatentOperationTonemapReinhard", "LatentOperationSharpen",
         "VideoLinearCFGGuidance", "VideoTriangleCFGGuidance", "SamplerLCMUpscale", "UNetLoaderLP", "ModelMergeBlocks", "ModelMergeSD1", "ModelMergeSD2", "ModelMergeSDXL", "ModelMergeSD3_2B",
         "ModelMergeAuraflow", "ModelMergeFlux1", "ModelMergeSD35_Large", "ModelMergeMochiPreview", "ModelMergeLTXV",
         "ModelMergeCosmos7B", "ModelMergeCosmos14B", "ModelMergeWAN2_1", "ModelMergeCosmosPredict2_2B",
         "ModelMergeCosmosPredict2_14B", "ModelMergeQwenImage", "CLIPMergeSimple", "CLIPMergeAdd", "CLIPMergeSubtract",
         "ModelSave", "CLIPSave", "VAESave", "CheckpointSave", "SaveAnimatedPNG", "SaveAnimatedWEBP", "SaveSVGNode", "SaveImageWebsocket", "ModelComputeDtype",
         "LoadAudio", "SaveAudio", "SaveAudioMP3", "SaveAudioOpus", "PreviewAudio", "EmptyAudio", "TrimAudioDuration",
         "PrimitiveString", "PrimitiveStringMultiline", "PrimitiveInt", "PrimitiveFloat", "PrimitiveBoolean"]

# Loaders of 4-bit files: the plain ones' inputs without options, from an add-on of their own.
FOUR_BITS = {"CheckpointLoaderNF4": "CheckpointLoaderSimple", "UNETLoaderNF4": "UNETLoader"}
GGUF = ["UnetLoaderGGUF", "UnetLoaderGGUFAdvanced", "CLIPLoaderGGUF", "DualCLIPLoaderGGUF", "TripleCLIPLoaderGGUF", "QuadrupleCLIPLoaderGGUF"]
NODES += [n + s for n in GGUF for s in ("", "MultiGPU", "DisTorch2MultiGPU", "DisTorchMultiGPU")]

# What newer versions know beyond 0.3.64.
TYPES = {"CLIPLoader": ["flux2", "ovis", "longcat_image", "cogvideox", "lens", "pixeldit", "ideogram4", "boogu", "krea2", "joyimage", "mage", "minimax"],
         "DualCLIPLoader": ["hunyuan_video_15", "kandinsky5", "kandinsky5_image", "ltxv", "newbie", "ace"]}
# Nodes that pass on what they save or show, which those of 0.3.64 do not.
PASSING = ["SaveLatent", "SaveImage", "PreviewImage", "MaskPreview", "SaveAnimatedPNG", "SaveAnimatedWEBP", "SaveSVGNode", "PreviewAny",
           "SaveAudio", "SaveAudioMP3", "SaveAudioOpus", "PreviewAudio"]
# Of add-ons.
PACKS = ["VHS_VideoCombine", "VHS_LoadVideo", "VHS_VideoInfo", "VHS_LoadAudioUpload",
         "DownloadAndLoadFlorence2Lora", "DownloadAndLoadFlorence2Model", "Florence2ModelLoader", "Florence2Run",
         "Florence2ModelLoaderMultiGPU", "DownloadAndLoadFlorence2ModelMultiGPU",
         "LTXVLoader", "LTXVLoaderMultiGPU", "ModifyLTXModel", "LTXAttnOverride", "LTXPerturbedAttention",
         "LoadFluxControlNet", "LoadFluxControlNetMultiGPU", "ApplyFluxControlNet", "ApplyAdvancedFluxControlNet", "XlabsSampler",
         "FluxLoraLoader", "LoadFluxIPAdapter", "ApplyFluxIPAdapter", "ApplyAdvancedFluxIPAdapter",
         "MMAudioModelLoader", "MMAudioFeatureUtilsLoader", "MMAudioSampler", "MMAudioModelLoaderMultiGPU", "MMAudioFeatureUtilsLoaderMultiGPU",
         "MMAudioSamplerMultiGPU", "MMAudioVoCoderLoader",
         "PulidModelLoader", "PulidInsightFaceLoader", "PulidEvaClipLoader", "PulidModelLoaderMultiGPU", "PulidInsightFaceLoaderMultiGPU",
         "PulidEvaClipLoaderMultiGPU", "ApplyPulid", "ApplyPulidAdvanced",
         "DF_Text_Box", "ShowText|pysssss", "Int2String", "easy mathInt", "Text Concatenate", "Int", "Any Switch (rgthree)"]
# One whose pack is not known.
UNKNOWN = {"Int": {"input": {"required": {"value": ["INT", {"default": 0}]}}, "input_order": {"required": ["value"]}, "output": ["INT"],
                   "output_is_list": [False], "output_name": ["INT"], "name": "Int", "display_name": "Int",
                   "python_module": "custom_nodes.ComfyUI-Logic", "category": "Logic", "output_node": False}}
# Inputs that came later or reach further. What came later is optional here, so that prompts made before run.
INPUTS = {"LatentFromBatch": ["batch_index"], "ImageFromBatch": ["batch_index"],
          "PrimitiveInt": ["value"], "PrimitiveFloat": ["value"]}
LATER = {"ImageScaleToTotalPixels": ["resolution_steps"], "CFGNorm": ["pre_cfg"]}
# Lists that are longer now.
LISTS = {"KSampler": "sampler_name", "KSamplerAdvanced": "sampler_name", "KSamplerSelect": "sampler_name"}
# The add-on shows these without the inputs that it adds: the newer schema of the loaders hides them. Ours have those of CLIPLoader's.
HIDDEN = ["TripleCLIPLoader", "QuadrupleCLIPLoader"]
NEWER = ["ZImageFunControlnet", "FluxKontextMultiReferenceLatentMethod", "EmptyFlux2LatentImage", "SamplerSEEDS2", "ManualSigmas", "SamplerLCM", "Flux2Scheduler", "CFGOverride", "ComfySwitchNode", "ComfyNotNode", "ComfyAndNode", "ComfyOrNode", "CustomCombo", "CreateList",
         "ComfyMathExpression", "ComfyNumberConvert", "SeedNode", "ResolutionSelector", "ResizeImageMaskNode",
         "ImageCropV2", "PrimitiveBoundingBox", "BatchImagesNode", "BatchMasksNode", "BatchLatentsNode", "ImageCompare",
         "LatentCutToBatch", "JsonExtractString", "SaveImageAdvanced", "FluxKVCache", "DualModelGuider", "ColorTransfer", "ImageCropToMask",
         "LoadVideo", "SaveVideo", "SaveWEBM", "CreateVideo", "GetVideoComponents", "Video Slice",
         "EmptyHunyuanVideo15Latent", "HunyuanVideo15ImageToVideo", "ModelAttentionBackend", "EmptyQwenImageLayeredLatentImage", "MultiGPU_WorkUnits", "LatentUpscaleModelLoader", "LTXVLatentUpsampler"]
PAGE_ONLY = ("is_input_list", "dev_only", "price_badge", "search_aliases", "essentials_category", "has_intermediate_output")

PROSE = {"description", "tooltip", "output_tooltips"}


def without_prose(value):
    if isinstance(value, dict):
        return {key: without_prose(entry) for key, entry in value.items() if key not in PROSE}
    return [without_prose(entry) for entry in value] if isinstance(value, list) else value


with open(sys.argv[1], encoding="utf-8") as f:
    everything = json.load(f)
for name, types in TYPES.items():
    for ending in ("", "MultiGPU", "DisTorch2MultiGPU"):
        choices = everything[name + ending]["input"]["required"]["type"][0]
        choices += [t for t in types if t not in choices]
    # The add-on for GGUF files shows what these show.
    for ending in ("GGUF", "GGUFMultiGPU", "GGUFDisTorch2MultiGPU", "GGUFDisTorchMultiGPU"):
        everything[name + ending]["input"]["required"]["type"][0][:] = choices
for name in HIDDEN:
    for ending in ("MultiGPU", "DisTorch2MultiGPU"):
        model = everything["CLIPLoader" + ending]
        files = list(everything[name]["input"]["required"])
        variant = json.loads(json.dumps(model))
        variant["input"]["required"] = {f: [[]] for f in files}
        variant["input_order"]["required"] = files
        variant["name"] = variant["display_name"] = name + ending
        everything[name + ending] = variant
for name, plain in FOUR_BITS.items():
    for ending in ("", "MultiGPU", "DisTorch2MultiGPU"):
        variant = json.loads(json.dumps(everything[plain + ending]))
        file = next(iter(variant["input"]["required"]))
        variant["input"]["required"] = {file: [[]]}
        variant["input_order"]["required"] = [file]
        variant["name"] = variant["display_name"] = name + ending
        if not ending:
            variant["python_module"] = "custom_nodes.ComfyUI_bitsandbytes_NF4"
        everything[name + ending] = variant
        NODES.append(name + ending)
with open(sys.argv[2], encoding="utf-8") as f:
    newer = json.load(f)
for name, inputs in INPUTS.items():
    for key in inputs:
        everything[name]["input"]["required"][key] = newer[name]["input"]["required"][key]
for name, inputs in LATER.items():
    for key in inputs:
        entry = {**newer[name]["input"].get("optional", {}), **newer[name]["input"]["required"]}[key]
        entry[1].pop("advanced", None)
        everything[name]["input"].setdefault("optional", {})[key] = entry
        everything[name]["input_order"].setdefault("optional", []).append(key)
for name, key in LISTS.items():
    entry = newer[name]["input"]["required"][key]
    choices = entry[1]["options"] if entry[0] == "COMBO" else entry[0]
    entry = everything[name]["input"]["required"][key]
    if entry[0] == "COMBO":
        entry[1]["options"] = choices
    else:
        entry[0] = choices
for name in PASSING:
    for key in ("output", "output_is_list", "output_name"):
        everything[name][key] = newer[name][key]
for path in sys.argv[3:]:
    with open(path, encoding="utf-8") as f:
        everything.update({name: value for name, value in json.load(f).items() if name in PACKS})
everything.update(UNKNOWN)
# An empty list of optional inputs says nothing.
for name in PACKS:
    for key in ("input", "input_order"):
        if not everything[name][key].get("optional", True):
            del everything[name][key]["optional"]
for name in NEWER:
    everything[name] = {key: value for key, value in newer[name].items()
                        if key not in PAGE_ONLY and (key != "output_matchtypes" or value)}
target = os.path.join(os.path.dirname(os.path.abspath(__file__)), "object_info_reference.json")
with open(target, "w", encoding="utf-8") as f:
    f.write("{\n" + ",\n".join(f"{json.dumps(n)}: {json.dumps(without_prose(everything[n]))}" for n in NODES + PACKS + NEWER) + "\n}\n")
