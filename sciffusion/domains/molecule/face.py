"""Molecules in memory answered from Python; `domains.molecule.Conformers` is the way in."""

from __future__ import annotations

from collections.abc import Sequence

from rdkit import Chem

from sciffusion.domains.molecule.chem import parse_smiles
from sciffusion.domains.molecule.generate import Generator
from sciffusion.domains.molecule.requests import Limits, Names, Request, isomers_of, request_of
from sciffusion.errors import InputError


def answered(
    generator: Generator,
    mols: Sequence[str | Chem.Mol],
    limits: Limits,
    together: int,
    skip: bool = False,
) -> list[Chem.Mol | None]:
    """The molecules with their conformers, those of one stereoisomer after another.

    Args:
        generator: what draws them, and the settings.
        mols: SMILES or RDKit molecules.
        together: conformers drawn together.
        skip: None, and a line for people, in the place of a molecule that cannot be served.

    Raises:
        InputError: one that cannot be served; what cannot be asked for is told before any drawing.
    """
    asked = [_asked(generator, mol, k, len(mols), limits, skip) for k, mol in enumerate(mols, 1)]
    names = Names()
    flat = [request for group in asked for request in group if request is not None]
    for request in flat:
        request.mol.SetProp("_Name", names.unique(request.name))
    size = max(1, together // generator.settings.n)
    answers = (a for k in range(0, len(flat), size) for a in generator(flat[k : k + size]))
    found: list[Chem.Mol | None] = []
    for request in (request for group in asked for request in group):
        if request is None:
            found.append(None)
            continue
        answer = next(answers)
        problem = f"{request.where}: {answer.problem}"
        served = answer.mol.GetNumConformers() > 0
        if answer.problem and not served and not skip:
            raise InputError(problem)
        if answer.problem:
            generator.say(problem)
        found.append(answer.mol if served else None)
    return found


def _asked(
    generator: Generator, given: str | Chem.Mol, number: int, count: int, limits: Limits, skip: bool
) -> list[Request] | list[None]:
    where = f"molecule {number} of {count}"
    try:
        if not isinstance(given, str | Chem.Mol):
            raise InputError(f"{given!r:.40} is no molecule: give a SMILES or an RDKit molecule")
        mol = parse_smiles(given) if isinstance(given, str) else given
        own = mol.GetProp("_Name") if mol.HasProp("_Name") else ""
        request = request_of(mol, own or f"molecule_{number}", where, limits)
        if generator.settings.stereo == "enumerate":
            return isomers_of(request, generator.settings.seed, generator.say)
        return [request]
    except InputError as error:
        if not skip:
            raise InputError(f"{where}: {error}") from error
        generator.say(f"{where}: {error}")
        return [None]
