"""A flame graph as an SVG that needs nothing else: `svg(stacks, title, total, unit)`.

`stacks` has, for each call stack `outermost;...;innermost`, how many samples were in it. A frame is as wide as its share of
the samples; hovering over it tells its name, its share, and that share of `total`.
"""
import html

WIDTH, ROW, CHARACTER = 1200, 17, 6.4
# By where the code is: the kernel's, levada's, other libraries'.
FILLS = {"kernel": "#c9b8a8", "levada": "#6aa8f0", "other": "#8fce9f"}


class Frame:
    def __init__(self, name):
        self.name, self.samples, self.inner = name, 0, {}

    def depth(self):
        return 1 + max((frame.depth() for frame in self.inner.values()), default=0)


def tree_of(stacks):
    root = Frame("all")
    for stack, samples in stacks.items():
        frame = root
        frame.samples += samples
        for name in stack.split(";"):
            frame = frame.inner.setdefault(name, Frame(name))
            frame.samples += samples
    return root


def place_of(name):
    return "kernel" if name.endswith("_[k]") else "levada" if "levada" in name else "other"


def svg(stacks, title, total, unit):
    root = tree_of(stacks)
    height = ROW * (root.depth() + 1)
    parts = []

    def draw(frame, x, level):
        width = WIDTH * frame.samples / root.samples
        if width < 0.4:
            return
        share = frame.samples / root.samples
        y = height - ROW * (level + 1)
        label = html.escape(frame.name.removesuffix("_[k]"))
        parts.append(f'<g><title>{label}: {share:.1%}, {share * total:.1f} {unit}</title>'
                     f'<rect x="{x:.1f}" y="{y}" width="{max(width - 0.3, 0.2):.1f}" height="{ROW - 1}" fill="{FILLS[place_of(frame.name)]}"/>')
        if (room := int((width - 4) / CHARACTER)) >= 3:
            text = frame.name.removesuffix("_[k]")
            text = text if len(text) <= room else text[: room - 1] + "…"
            parts.append(f'<text x="{x + 2:.1f}" y="{y + 12}">{html.escape(text)}</text>')
        parts.append("</g>")
        for inner in sorted(frame.inner.values(), key=lambda each: each.name):
            draw(inner, x, level + 1)
            x += WIDTH * inner.samples / root.samples

    draw(root, 0, 0)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{html.escape(title)}">'
            f'<style>text {{ font: 11px monospace; fill: #1d1d1b; pointer-events: none }}</style>'
            f'<text x="4" y="12">{html.escape(title)}</text>{"".join(parts)}</svg>\n')
