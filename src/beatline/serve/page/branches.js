// The ontology as the labels' parents and children tell it: kinds of sound to choose from.

export class Branches {
  /** `nodes` are `{mid, name, children}`, labels and the abstract kinds above them; `labels` the mids that are labels. */
  constructor(nodes, labels) {
    this.nodes = new Map(nodes.map((node) => [node.mid, node]));
    this.labels = labels;
  }

  /** Mids of all labels of this kind, itself included. */
  members(mid) {
    const found = new Set();
    const waiting = [mid];
    while (waiting.length) {
      const next = waiting.pop();
      if (found.has(next)) continue;
      found.add(next);
      waiting.push(...(this.nodes.get(next)?.children ?? []));
    }
    return new Set([...found].filter((one) => this.labels.has(one)));
  }

  /** Each kind that has labels below it, in the order of the tree, as `{mid, name, depth, count}`; one with several parents comes several times. */
  choices() {
    const children = new Set([...this.nodes.values()].flatMap((node) => node.children ?? []));
    const found = [];
    const visit = (mid, depth, above) => {
      const node = this.nodes.get(mid);
      if (!node || above.includes(mid)) return;
      const count = this.members(mid).size;
      if (count < 2 && !(count && !this.labels.has(mid))) return; // a label alone is found by its name
      found.push({ mid, name: node.name, depth, count });
      for (const child of node.children ?? []) visit(child, depth + 1, [...above, mid]);
    };
    for (const mid of this.nodes.keys()) if (!children.has(mid)) visit(mid, 0, []);
    return found;
  }
}
