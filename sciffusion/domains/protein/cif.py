"""Backbones as mmCIF (PDBx dictionary): without limits of width, each chain an entity."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

from sciffusion.domains.protein.backbone import ATOMS, Backbone
from sciffusion.domains.protein.layout import DESIGN, chain_rows, checked, names_of, segments
from sciffusion.domains.protein.secondary import HELIX, STRAND

_RESERVED = re.compile(r"(data|save)_|(loop|stop|global)_$", re.IGNORECASE)
_ENDS = [
    field
    for end in ("beg", "end")
    for field in (
        *(f"{end}_label_comp_id", f"{end}_label_asym_id", f"{end}_label_seq_id"),
        *(f"{end}_auth_asym_id", f"{end}_auth_seq_id", f"pdbx_{end}_PDB_ins_code"),
    )
]
_ATOM_SITE = [
    *("group_PDB", "id", "type_symbol", "label_atom_id", "label_alt_id", "label_comp_id"),
    *("label_asym_id", "label_entity_id", "label_seq_id", "pdbx_PDB_ins_code", "Cartn_x"),
    *("Cartn_y", "Cartn_z", "occupancy", "B_iso_or_equiv", "auth_seq_id", "auth_comp_id"),
    *("auth_asym_id", "auth_atom_id", "pdbx_PDB_model_num"),
]


def cif_text(
    backbones: Backbone | Sequence[Backbone],
    b_factor: Float[np.ndarray, "*m l"] | None = None,
    secondary: Int[np.ndarray, " l"] | None = None,
    remarks: Sequence[str] = (),
    unknown: str = DESIGN,
) -> str:
    """An mmCIF file: one entity a chain, struct_conf, struct_sheet_range and atom_site.

    Args:
        backbones, b_factor, secondary, remarks, unknown: as for `pdb_text`.

    Raises:
        InputError: the models or arrays do not fit each other, or a coordinate is not finite.
    """
    models, b = checked(backbones, b_factor)
    found = segments(models[-1], secondary)
    one, names = models[0], names_of(models[0], unknown)
    chains = [quoted(name or " ") for name in one.chains]
    entity = np.concatenate([np.full(r.stop - r.start, k) for k, r in enumerate(chain_rows(one))])
    place = np.concatenate([np.arange(1, r.stop - r.start + 1) for r in chain_rows(one)])
    codes = [quoted(str(code)) if code else "?" for code in one.insertion]

    def end(row: int) -> str:
        """As the file counts (chain, place) and as authors do (chain, number, code)."""
        chain = chains[entity[row]]
        return f"{names[row]} {chain} {place[row]} {chain} {one.number[row]} {codes[row]}"

    block = re.sub(r"[^\w.+-]", "_", one.name, flags=re.ASCII)[:60] or "backbone"
    lines = [f"data_{block}", f"_entry.id {quoted(block)}"]
    if one.name:
        lines.append(f"_struct.entry_id {quoted(block)}\n_struct.title {quoted(one.name)}")
    lines += _loop("pdbx_database_remark", ["id", "text"], [f"6 {quoted(r)}" for r in remarks])
    numbers = range(1, len(chains) + 1)
    lines += _loop("entity", ["id", "type"], [f"{k} polymer" for k in numbers])
    lines += _loop(
        "entity_poly", ["entity_id", "type", "pdbx_strand_id"],
        [f"{k} polypeptide(L) {chain}" for k, chain in zip(numbers, chains, strict=True)],
    )  # fmt: skip
    lines += _loop(
        "entity_poly_seq", ["entity_id", "num", "mon_id"],
        [f"{e + 1} {p} {n}" for e, p, n in zip(entity, place, names, strict=True)],
    )  # fmt: skip
    lines += _loop(
        "struct_asym", ["id", "entity_id"],
        [f"{chain} {k}" for k, chain in zip(numbers, chains, strict=True)],
    )  # fmt: skip
    helices = [s for s in found if s.code == HELIX]
    strands = [s for s in found if s.code == STRAND]
    lines += _loop("struct_conf_type", ["id"], ["HELX_P"] if helices else [])
    lines += _loop(
        "struct_conf",
        ["conf_type_id", "id", *_ENDS, "pdbx_PDB_helix_class", "pdbx_PDB_helix_length"],
        [
            f"HELX_P HELX_P{k} {end(s.first)} {end(s.last)} 1 {s.last - s.first + 1}"
            for k, s in enumerate(helices, 1)
        ],
    )
    lines += _loop(
        "struct_sheet_range", ["sheet_id", "id", *_ENDS],
        [f"{k} 1 {end(s.first)} {end(s.last)}" for k, s in enumerate(strands, 1)],
    )  # fmt: skip
    atoms, serial = [], 0
    for m, (model, values) in enumerate(zip(models, b.tolist(), strict=True), 1):
        for i, (points, value) in enumerate(zip(model.coords.tolist(), values, strict=True)):
            chain, e = chains[entity[i]], entity[i]
            label = f"{names[i]} {chain} {e + 1} {place[i]} {codes[i]}"
            author = f"{one.number[i]} {names[i]} {chain}"
            for atom, (x, y, z) in zip(ATOMS, points, strict=True):
                serial += 1
                atoms.append(
                    f"ATOM {serial} {atom[0]} {atom} . {label} {x:.3f} {y:.3f} {z:.3f} 1.00 "
                    f"{value:.2f} {author} {atom} {m}"
                )
    return "\n".join([*lines, *_loop("atom_site", _ATOM_SITE, atoms), ""])


def quoted(value: str) -> str:
    """A value as CIF quotes it; on one line unless it holds quotes of both kinds."""
    value = " ".join(value.split()) or " "
    if re.fullmatch(r"[A-Za-z0-9][\w.+*/-]*", value, re.ASCII) and not _RESERVED.match(value):
        return value
    for quote in "'\"":
        if f"{quote} " not in value:
            return f"{quote}{value}{quote}"
    return f"\n;{value}\n;\n"


def _loop(category: str, fields: Sequence[str], rows: Sequence[str]) -> Iterator[str]:
    if rows:
        yield "#\nloop_"
        yield from (f"_{category}.{field}" for field in fields)
        yield from rows
