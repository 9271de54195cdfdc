"""object_info_reference.json: the signatures of the nodes that distorch has, as a ComfyUI server shows them.

    python make_object_info_reference.py OBJECT_INFO.json NEWER_OBJECT_INFO.json

OBJECT_INFO.json is the answer of GET /object_info of ComfyUI 0.3.64 with the MultiGPU add-on, on a machine without models and
accelerators; NEWER_OBJECT_INFO.json that of 0.33, for nodes that came later. A node that is new here is added to NODES or to NEWER.
Descriptions and tooltips are left out: ours are our own words; so are the keys that servers of 0.3.64 do not have.
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
         "ImageBatch", "EmptyImage", "SolidMask", "InvertMask", "ImageToMask", "MaskToImage",
         "KSampler", "KSamplerAdvanced", "CLIPTextEncodeSDXL", "CLIPTextEncodeSDXLRefiner",
         "ModelSamplingDiscrete", "ModelSamplingContinuousEDM", "ModelSamplingContinuousV", "ModelSamplingSD3",
         "ModelSamplingAuraFlow", "ModelSamplingFlux", "ModelSamplingStableCascade", "EmptySD3LatentImage", "RescaleCFG", "FreeU", "FreeU_V2",
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
         "PrimitiveString", "PrimitiveStringMultiline", "PrimitiveInt", "PrimitiveFloat", "PrimitiveBoolean"]
NEWER = ["SamplerSEEDS2", "ManualSigmas", "SamplerLCM", "Flux2Scheduler", "CFGOverride"]

PROSE = {"description", "tooltip", "output_tooltips"}


def without_prose(value):
    if isinstance(value, dict):
        return {key: without_prose(entry) for key, entry in value.items() if key not in PROSE}
    return [without_prose(entry) for entry in value] if isinstance(value, list) else value


def load(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


everything, newer = load(sys.argv[1]), load(sys.argv[2])
keys = set(everything["AlignYourStepsScheduler"])
everything.update({n: {k: v for k, v in newer[n].items() if k in keys} for n in NEWER})
target = os.path.join(os.path.dirname(os.path.abspath(__file__)), "object_info_reference.json")
with open(target, "w", encoding="utf-8") as f:
    f.write("{\n" + ",\n".join(f"{json.dumps(n)}: {json.dumps(without_prose(everything[n]))}" for n in [*NODES, *NEWER]) + "\n}\n")
