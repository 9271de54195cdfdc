#pragma once
#include <string>
#include <vector>

#include "distorch/graph/value.h"
#include "tools/make_random_model/write.h"

namespace distorch::random_model {

/// A model file that a workflow names.
struct NamedFile {
  std::string path;  // below the folder of models: "vae/ae.safetensors"
  const Kind* kind;
  WriteOptions options;  // dtype and scales as the name says
};

/// The files that the loaders of a workflow (of the page or of the API) name, each once. What kind
/// of model a file is, is told by its name and by the loader's input. Error(Usage) that names the
/// file where neither tells.
std::vector<NamedFile> files_of_workflow(const graph::Json& workflow);

}  // namespace distorch::random_model
