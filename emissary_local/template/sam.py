"""What CloudFormation gets of a SAM template: AWS's own translator makes plain resources of it.

The translator runs in a process of its own, since its import takes most of a second and tens of megabytes,
and its answers are kept: one process translates one text once.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from emissary_local.errors import LocalCloudError, TemplateError
from emissary_local.template import names
from emissary_local.template.intrinsics import load_yaml

TRANSFORM: Final = "AWS::Serverless-2016-10-31"

#: The bucket of code that is in a folder beside the template; the key is the folder. SAM wants an address in
#: S3, where ``sam deploy`` puts one.
LOCAL_CODE: Final = "local-folder"

#: How long a translation may take, in seconds: only a hang reaches it.
_TIMEOUT: Final = 120.0

#: The sections of a template in which each member has a name.
_SECTIONS: Final = ("Parameters", "Mappings", "Rules", "Conditions", "Resources", "Outputs")

#: How many translations are kept.
_KEPT: Final = 32

#: SAM's types with code, and the property that says where it is.
_CODE: Final = {"AWS::Serverless::Function": "CodeUri", "AWS::Serverless::LayerVersion": "ContentUri"}
_NO_FOLDER: Final = frozenset({"InlineCode", "ImageUri", "PackageType"})

_PROGRAM: Final = """
import json, sys
from samtranslator.model.exceptions import InvalidDocumentException
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
try:
    answer = {"document": Translator({}, Parser()).translate(json.load(sys.stdin), {})}
except InvalidDocumentException as exc:
    answer = {"faults": [cause.message for cause in exc.causes]}
json.dump(answer, sys.stdout)
"""


def load_and_translate(path: str | Path) -> dict[str, Any]:
    """Read a template and translate it, if it is one of SAM's. The result is not to be changed.

    Raises:
        TemplateError: If the file cannot be read, or SAM refuses what is in it.
        LocalCloudError: If SAM's translator breaks.
    """
    return translate(load_document(path), str(path))


def load_document(path: str | Path) -> dict[str, Any]:
    """Read a template as it stands.

    Raises:
        TemplateError: If the file cannot be read, or is no template.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise TemplateError(f"cannot read the template {path}: {exc}") from exc
    document = load_yaml(text, str(path))
    for section in _SECTIONS:
        if not isinstance(document.get(section) or {}, dict):
            raise TemplateError("want a mapping of names", where=section)
    return document


def translate(document: dict[str, Any], name: str) -> dict[str, Any]:
    """As :func:`load_and_translate`, of a document; one without the transform stays as it is."""
    given = document.get("Transform") or []
    transforms = given if isinstance(given, list) else [given]
    for transform in transforms:
        if transform != TRANSFORM:
            raise TemplateError(f"the local cloud knows no transform but {TRANSFORM}", where="Transform")
    resources = document.get("Resources") or {}
    if not transforms:
        for logical_id, resource in resources.items():
            kind = str(resource.get("Type")) if isinstance(resource, dict) else ""
            if kind.startswith("AWS::Serverless::"):
                raise TemplateError(f"{kind} needs Transform: {TRANSFORM}", where=f"Resources.{logical_id}")
        return document
    parameters = document.get("Parameters") or {}
    prepared = {
        **document,
        # Without their defaults SAM leaves references to parameters as they are, for their real values.
        "Parameters": {
            key: {inner: value for inner, value in each.items() if inner != "Default"}
            for key, each in parameters.items()
        },
        "Globals": _with_local_code(document.get("Globals") or {}),
        "Resources": {key: _resource(each, document) for key, each in resources.items()},
    }
    answer = _run_translator(json.dumps(prepared))
    if "faults" in answer:
        raise TemplateError(f"SAM refuses {name}: {'; '.join(answer['faults'])}")
    result: dict[str, Any] = answer["document"]
    return {**result, "Parameters": parameters} if parameters else result


def _with_local_code(given: Mapping[str, Any]) -> dict[str, Any]:
    function = given.get("Function") or {}
    return {**given, "Function": _with_bucket(function, "CodeUri")} if "CodeUri" in function else dict(given)


def _resource(resource: Any, document: Mapping[str, Any]) -> Any:
    if not isinstance(resource, dict) or resource.get("Type") not in _CODE:
        return resource
    wanted, properties = _CODE[resource["Type"]], resource.get("Properties") or {}
    shared = ((document.get("Globals") or {}).get("Function") or {}) if wanted == "CodeUri" else {}
    if wanted not in properties and not _NO_FOLDER & {*properties, *shared} and wanted not in shared:
        properties = {**properties, wanted: "."}
    return {**resource, "Properties": _with_bucket(properties, wanted)}


def _with_bucket(properties: Mapping[str, Any], name: str) -> dict[str, Any]:
    place = properties.get(name)
    elsewhere = (isinstance(place, dict) and "Bucket" in place) or str(place).startswith("s3://")
    if place is None or elsewhere:
        return dict(properties)
    return {**properties, name: {"Bucket": LOCAL_CODE, "Key": place}}


@functools.lru_cache(maxsize=_KEPT)
def _run_translator(text: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _PROGRAM],
        input=text,
        env={
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "AWS_DEFAULT_REGION": names.REGION,
        },
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
    )
    if done.returncode:
        raise LocalCloudError(f"SAM's translator broke:\n{done.stderr.strip()}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
