#!/usr/bin/env python3
"""Makes up workflows for comparing our conversion with the page's. Run by hand.

    random_workflows.py --out FOLDER --count 200 --seed 1 --object-info INFO.json

Writes FOLDER/r<seed>.json and the definitions of the node types used. page_prompts.py then asks the page,
convert_templates.py compares: nested subgraphs with promoted widgets, bypassed and muted nodes, reroutes,
primitives, dynamic combos, growing inputs, short and null values, files of older pages.
"""
import argparse
import json
import pathlib
import random
import uuid

WHOLE = ["INT", {"default": 1, "min": 0, "max": 1000}]
SEED = ["INT", {"default": 0, "min": 0, "max": 1000000, "control_after_generate": True}]
LINE = ["STRING", {"default": "s"}]
TEXT = ["STRING", {"default": "m", "multiline": True, "dynamicPrompts": True}]
CHOICE = [["a", "b", "c"], {}]
NUMBER = ["FLOAT", {"default": 0.5}]
SWITCH = ["BOOLEAN", {"default": False}]
MATCH = ["COMFY_MATCHTYPE_V3", {"template": {"template_id": "s", "allowed_types": "*"}}]
OPTIONS = [{"key": "none", "inputs": {"required": {}}},
           {"key": "size", "inputs": {"required": {"w": WHOLE, "h": WHOLE, "crop": CHOICE}}},
           {"key": "match", "inputs": {"required": {"ref": ["IMAGE,MASK", {}], "crop": CHOICE}}}]
GROWING = {"input": {"required": {"image": ["IMAGE", {}]}}, "prefix": "image", "min": 1, "max": 9}
BY_TYPE = {"INT": WHOLE, "STRING": LINE, "FLOAT": NUMBER, "BOOLEAN": SWITCH, "COMBO": CHOICE}


def definition(name, required, outputs, optional=None):
    inputs = {"required": required, **({"optional": optional} if optional else {})}
    return {"input": inputs, "input_order": {k: list(v) for k, v in inputs.items()}, "output": outputs,
            "output_is_list": [False] * len(outputs), "output_name": outputs, "name": name, "display_name": name,
            "description": "", "category": "made up", "output_node": True, "python_module": "nodes"}


TYPES = {d["name"]: d for d in [
    definition("Src", {"n": WHOLE}, ["IMAGE", "MASK", "INT", "STRING", "FLOAT", "BOOLEAN"]),
    definition("Mix", {"image": ["IMAGE"], "seed": SEED, "mask": ["MASK"], "text": TEXT, "mode": CHOICE},
               ["IMAGE", "MASK", "INT"], {"any": ["*"], "either": ["IMAGE,MASK"], "strength": NUMBER}),
    definition("Wid", {"a": WHOLE, "b": LINE, "c": CHOICE, "d": NUMBER, "e": SWITCH}, ["INT", "STRING", "*"]),
    definition("Sw", {"switch": SWITCH, "on_false": MATCH, "on_true": MATCH}, ["COMFY_MATCHTYPE_V3"]),
    definition("Dyn", {"image": ["IMAGE"], "how": ["COMFY_DYNAMICCOMBO_V3", {"options": OPTIONS}], "tail": WHOLE},
               ["IMAGE", "INT"]),
    definition("Grow", {"images": ["COMFY_AUTOGROW_V3", {"template": GROWING}], "last": WHOLE}, ["IMAGE", "MASK"]),
    definition("Out", {"x": ["*"]}, ["*"])]}


def type_of(declared):
    return "COMBO" if isinstance(declared[0], list) else declared[0]


def fits(one, other):
    return "*" in (one, other) or bool(set(one.split(",")) & set(other.split(",")))


class Maker:
    """One workflow. `sockets` are (name, type, is a widget); links (id, from, slot, to, slot, type)."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.subgraphs = {}
        self.last_id = 0
        self.old_page = self.chance(0.5)  # such files list only the widget sockets that are linked

    def chance(self, share):
        return self.random.random() < share

    def value(self, declared):
        kind = type_of(declared)
        return {"INT": lambda: self.random.randint(0, 900), "FLOAT": lambda: self.random.choice([0.25, 0.5, 2.5]),
                "BOOLEAN": lambda: self.chance(0.5), "COMBO": lambda: self.random.choice("abc"),
                "STRING": lambda: self.random.choice(["hello", "x {q} y", "plain"])}[kind]()

    def identifier(self):
        return str(uuid.UUID(int=self.random.getrandbits(128)))

    def shape(self, kind):
        """Sockets, values and outputs of a new node."""
        if kind in self.subgraphs:
            inputs, outputs = self.subgraphs[kind]["made"]
            return ([(i["name"], i["type"], i["widget"]) for i in inputs],
                    [self.value(BY_TYPE[i["type"]]) for i in inputs if i["widget"]],
                    [(o["name"], o["type"]) for o in outputs])
        plain, widgets, values = [], [], []
        for section in TYPES[kind]["input"].values():
            for name, declared in section.items():
                self.add_input(name, declared, plain, widgets, values)
        outputs = [(o, "*" if o == "COMFY_MATCHTYPE_V3" else o) for o in TYPES[kind]["output"]]
        return plain + widgets, values, outputs

    def add_input(self, name, declared, plain, widgets, values):
        kind = type_of(declared)
        if kind in BY_TYPE:
            widgets.append((name, kind, True))
            values.append(self.value(declared))
            if len(declared) > 1 and declared[1].get("control_after_generate"):
                values.append(self.random.choice(["fixed", "randomize"]))
        elif kind == "COMFY_DYNAMICCOMBO_V3":
            option = self.random.choice(declared[1]["options"])
            widgets.append((name, kind, True))
            values.append(option["key"])
            for inner, inner_declared in option["inputs"]["required"].items():
                self.add_input(f"{name}.{inner}", inner_declared, plain, widgets, values)
        elif kind == "COMFY_AUTOGROW_V3":
            plain += [(f"{name}.image{i}", "IMAGE", False) for i in range(self.random.randint(1, 4))]
        else:
            plain.append((name, "*" if kind == "COMFY_MATCHTYPE_V3" else kind, False))

    def graph(self, inner):
        """Nodes and links of one graph, and what it takes and gives if it is a subgraph."""
        nodes, links, sources, takes = [], [], [], []

        def link(origin, slot, target, target_slot, kind):
            links.append([len(links) + 1, origin, slot, target, target_slot, kind])
            return len(links)

        def feed(node, slot, name, kind, widget):
            """Links one input, perhaps; tells the type that arrives."""
            primitives = [n for n in nodes if n["type"] == "PrimitiveNode" and not n["outputs"][0]["links"]]
            if widget and kind == "INT" and primitives and node["type"] not in self.subgraphs:
                output = primitives[0]["outputs"][0]
                output["widget"] = {"name": name}
                output["links"].append(link(primitives[0]["id"], 0, node["id"], slot, "INT"))
                return output["links"][-1], kind
            exposed = inner and kind not in ("*", "COMFY_DYNAMICCOMBO_V3") and len(takes) < 6
            if exposed and self.chance(0.33):
                shared = [k for k, t in enumerate(takes) if t["type"] == kind and t["widget"] == widget]
                place = shared[0] if shared and self.chance(0.3) else len(takes)
                if place == len(takes):
                    takes.append({"id": self.identifier(), "name": f"in{place}", "type": kind, "linkIds": [],
                                  "widget": widget})
                takes[place]["linkIds"].append(link(-10, place, node["id"], slot, kind))
                return takes[place]["linkIds"][-1], kind
            fitting = [s for s in sources if fits(s[2], kind)]
            if not fitting or not self.chance(1 if node["type"] == "Reroute" else 0.2 if widget else 0.8):
                return None, "*"
            origin, origin_slot, arriving = self.random.choice(fitting)
            made = link(origin["id"], origin_slot, node["id"], slot, arriving)
            origin["outputs"][origin_slot]["links"].append(made)
            return made, arriving

        kinds = ["Mix", "Wid", "Sw", "Dyn", "Grow", "Out", "Reroute", "Mix", "PrimitiveNode", *self.subgraphs,
                 *self.subgraphs]
        for kind in ["Src", *(self.random.choice(kinds) for _ in range(self.random.randint(4, 9))), "Out"]:
            self.last_id += 1
            mode = 0 if kind == "Src" else self.random.choice([0, 0, 0, 0, 0, 2, 4, 4])
            node = {"id": self.last_id, "type": kind, "pos": [0, 0], "size": [200, 100], "flags": {},
                    "order": len(nodes), "mode": mode, "inputs": [], "outputs": [], "properties": {}}
            nodes.append(node)
            if kind == "PrimitiveNode":
                node["outputs"] = [{"name": "INT", "type": "INT", "links": [], "widget": {"name": "seed"}}]
                node["widgets_values"] = [self.random.randint(1, 99), "fixed"]
                continue
            sockets, values, outputs = ([("", "*", False)], None, [("", "*")]) if kind == "Reroute" else self.shape(kind)
            if values is not None:
                node["widgets_values"] = self.spoil(values)
            for slot, (name, wanted, widget) in enumerate(sockets):
                made, arriving = feed(node, slot, name, wanted, widget)
                node["inputs"].append({"name": name, "type": wanted, "link": made,
                                       **({"widget": {"name": name}} if widget else {})})
                if kind in ("Reroute", "Sw") and made and not widget:
                    outputs = [(outputs[0][0], arriving)]
            node["outputs"] = [{"name": name, "type": given, "links": []} for name, given in outputs]
            sources += [(node, slot, given) for slot, (_, given) in enumerate(outputs)]
        gives = []
        for place in range(self.random.randint(1, 3) if inner else 0):
            origin, slot, given = self.random.choice(sources)
            made = link(origin["id"], slot, -20, place, given)
            gives.append({"id": self.identifier(), "name": f"out{place}", "type": given, "linkIds": [made]})
        if self.old_page:
            self.as_old_page(nodes, links)
        return nodes, links, takes, gives

    def spoil(self, values):
        if self.chance(0.15):
            values = values[:self.random.randint(0, len(values))]
        return [None if self.chance(0.3) else v for v in values] if self.chance(0.1) else values

    def as_old_page(self, nodes, links):
        for node in nodes:
            if node["type"] not in self.subgraphs:
                node["inputs"] = [i for i in node["inputs"] if "widget" not in i or i["link"]]
            slots = {i["link"]: slot for slot, i in enumerate(node["inputs"]) if i["link"]}
            for entry in links:
                entry[4] = slots.get(entry[0], entry[4])

    def subgraph(self, number):
        nodes, links, takes, gives = self.graph(inner=True)
        keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
        self.subgraphs[self.identifier()] = {
            "made": (takes, gives), "version": 1, "revision": 0, "config": {}, "name": f"S{number}",
            "state": {"lastGroupId": 0, "lastNodeId": self.last_id, "lastLinkId": len(links), "lastRerouteId": 0},
            "inputNode": {"id": -10, "bounding": [0, 0, 9, 9]}, "outputNode": {"id": -20, "bounding": [0, 0, 9, 9]},
            "inputs": [{**{k: t[k] for k in ("id", "name", "type", "linkIds")}, "pos": [0, 0]} for t in takes],
            "outputs": [{**g, "pos": [0, 0]} for g in gives], "widgets": [], "nodes": nodes, "groups": [],
            "links": [dict(zip(keys, entry)) for entry in links], "extra": {}}

    def workflow(self):
        for number in range(self.random.choice([0, 1, 2, 2])):
            if self.chance(0.5):
                self.last_id = 0  # ids that clash
            self.subgraph(number)
        if self.chance(0.5):
            self.last_id = 0
        nodes, links, _, _ = self.graph(inner=False)
        definitions = [{"id": key, **{k: v for k, v in s.items() if k != "made"}} for key, s in self.subgraphs.items()]
        self.random.shuffle(definitions)
        return {"id": self.identifier(), "revision": 0, "last_node_id": max(n["id"] for n in nodes),
                "last_link_id": len(links), "nodes": nodes, "links": links, "groups": [], "config": {}, "extra": {},
                "version": 0.4, **({"definitions": {"subgraphs": definitions}} if definitions else {})}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--object-info", type=pathlib.Path, required=True)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    arguments.object_info.write_text(json.dumps(TYPES))
    arguments.out.mkdir(parents=True, exist_ok=True)
    for seed in range(arguments.seed, arguments.seed + arguments.count):
        (arguments.out / f"r{seed}.json").write_text(json.dumps(Maker(seed).workflow()))


if __name__ == "__main__":
    main()
