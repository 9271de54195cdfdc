#pragma once
#include <memory>

#include "distorch/graph/catalog.h"
#include "distorch/models/pulid/adapter.h"
#include "distorch/models/pulid/eva_vision.h"
#include "distorch/models/pulid_faces/bisenet.h"
#include "distorch/models/pulid_faces/onnx_network.h"
#include "distorch/models/pulid_faces/retina_face.h"
#include "distorch/nodes/app.h"
#include "distorch/nodes/values.h"

/// PuLID for SDXL: a face that the model looks at beside the text. Files: models/pulid, the picture
/// encoder in models/clip_vision, insightface's antelopev2 in models/insightface/models/antelopev2,
/// facexlib's two networks in models/facexlib. Source: cubiq/PuLID_ComfyUI, pulid.py.
namespace distorch::nodes {

inline constexpr const char* kPulidModule = "custom_nodes.PuLID_ComfyUI";
inline constexpr const char* kPulidCategory = "pulid";

/// What travels over links of type PULID.
struct PulidModel {
  std::shared_ptr<Loaded<models::pulid::Adapter>> loaded;
};
/// EVA_CLIP.
struct EvaClip {
  std::shared_ptr<Loaded<models::pulid::EvaVision>> loaded;
};
/// FACEANALYSIS: insightface's two networks, of which ArcFace says whose face it is, and facexlib's,
/// which cut the face out for EVA.
struct FaceAnalysis {
  std::shared_ptr<Loaded<models::pulid_faces::OnnxNetwork>> detector, recogniser;
  std::shared_ptr<Loaded<models::pulid_faces::RetinaFace>> cutter;
  std::shared_ptr<Loaded<models::pulid_faces::BiSeNet>> parts;
};

/// pulid_loaders.cpp, pulid.cpp.
void add_pulid_loader_nodes(graph::Catalog& catalog, App& app);
void add_pulid_nodes(graph::Catalog& catalog);

}  // namespace distorch::nodes
