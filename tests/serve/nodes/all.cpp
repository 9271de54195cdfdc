#include "distorch/cli/more_nodes.h"
#include "tests/serve/nodes/testing_nodes.h"

namespace distorch::cli {

void add_more_nodes(graph::Catalog& catalog) {
  testing_nodes::add_stub_nodes(catalog);
  testing_nodes::add_picture_nodes(catalog);
  testing_nodes::add_flow_nodes(catalog);
  testing_nodes::add_list_nodes(catalog);
  testing_nodes::add_waiting_nodes(catalog);
}

}  // namespace distorch::cli
