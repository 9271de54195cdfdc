#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "distorch/graph/value.h"

/// What Florence-2 is asked and what its answers say.
namespace distorch::nodes::florence2 {

/// How an answer is to be read.
enum class Form {
  Text,
  Boxes,      // phrases with boxes behind each
  Proposals,  // boxes alone
  Grounding,  // phrases of the question with boxes behind each; words like "it" are left out
  Polygons,
  TextLines,  // lines of writing, each with the four corners of its place
};

/// A task of Florence2Run.
struct Task {
  std::string name;   // as the node lists it
  std::string token;  // "<OD>"
  Form form = Form::Text;
  bool takes_text = false;
};

/// All tasks in the node's order.
const std::vector<Task>& tasks();
/// Error(Usage) that lists the names for another one.
const Task& task_named(const std::string& name, const std::string& place);

/// The words that the model was trained to answer to. Source: the published model folders'
/// Florence2Processor.
std::string question(const Task& task, const std::string& text);

/// Numbers of 1000 steps over the picture, as pixels: x and y in turn.
using Points = std::vector<double>;

/// A place in a picture and what is there.
struct Region {
  std::string label;
  /// One box (left, top, right, bottom), the corners of a line of text, or polygons.
  std::vector<Points> shapes;
};

/// The regions of an answer with its special tokens, in a picture of that size in pixels.
std::vector<Region> regions_of(const std::string& answer, Form form, std::int64_t width,
                               std::int64_t height);

/// The answer as the node gives it: without start and end; of lines of text without any special
/// token, a line each.
std::string caption_of(const std::string& answer, Form form);

}  // namespace distorch::nodes::florence2
