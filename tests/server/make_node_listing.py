"""distorch/server/node_listing_table.cpp: how ComfyUI 0.33 lists the node types that distorch has.

    python make_node_listing.py OBJECT_INFO.json

OBJECT_INFO.json is the answer of GET /object_info of ComfyUI 0.33. The types are those of tests/nodes/object_info_reference.json. Only
facts are taken: categories, names, words to search by, flags. Descriptions and tooltips are not.
"""
import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
FLAGS = [("kNewer", lambda d: "dev_only" in d), ("kDeprecated", lambda d: d.get("deprecated")),
         ("kExperimental", lambda d: d.get("experimental")), ("kIntermediate", lambda d: d.get("has_intermediate_output"))]
HEAD = """// Made by tests/server/make_node_listing.py. Facts of ComfyUI 0.33.
#include "distorch/server/node_listing.h"

namespace distorch::server {

using namespace listing;

// clang-format off
const std::vector<ListedType>& listed_types() {
  static const std::vector<ListedType> list = {
"""
TAIL = """  };
  return list;
}
// clang-format on

}  // namespace distorch::server
"""


def text(value):
    return "nullptr" if value is None else json.dumps(value, ensure_ascii=False)


def advanced(definition):
    inputs = definition["input"]
    return [name for part in ("required", "optional") for name, entry in inputs.get(part, {}).items()
            if len(entry) > 1 and entry[1].get("advanced")]


def row(name, definition):
    words = definition["search_aliases"]
    assert not any("|" in word for word in (words or []) + advanced(definition)), name
    flags = [flag for flag, test in FLAGS if test(definition)]
    return (f"    {{{text(name)}, {text(definition['category'])}, {text(definition['display_name'])}, {' | '.join(flags) or 0}, "
            f"{text(definition.get('essentials_category'))},\n     {text(None if words is None else '|'.join(words))}, {text('|'.join(advanced(definition)))}}},\n")


with open(sys.argv[1], encoding="utf-8") as f:
    newer = json.load(f)
with open(os.path.join(ROOT, "tests", "nodes", "object_info_reference.json"), encoding="utf-8") as f:
    ours = json.load(f)
with open(os.path.join(ROOT, "distorch", "server", "node_listing_table.cpp"), "w", encoding="utf-8") as f:
    f.write(HEAD + "".join(row(name, newer[name]) for name in sorted(ours) if name in newer) + TAIL)
