"""JSON shapes: which problem of a value is reported, and what becomes of nulls and numbers."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import pytest

pytest.importorskip("orjson", reason="the simulate extra is not installed")

from pydantic import Field, TypeAdapter

from duologue.simulators._json_shapes import AS_SENT, LEFT_OUT, JsonShape, ShapeError, read


class Named(JsonShape):
    name: str
    size: Annotated[int, Field(ge=1, le=9)] = LEFT_OUT
    note: str | None = None


class Circle(JsonShape):
    type: Literal["circle"]
    radius: Annotated[float, Field(ge=0.0, le=1.0), AS_SENT]


class Square(JsonShape):
    type: Literal["square"]
    square: Named = LEFT_OUT


class Only(JsonShape):
    TAG: ClassVar[str] = "type"

    type: Literal["only"]
    wide: bool = LEFT_OUT


class Picture(JsonShape):
    title: str | Named = LEFT_OUT
    limit: Annotated[int, Field(ge=1)] | Literal["none"] = LEFT_OUT
    shapes: list[Annotated[Circle | Square, Field(discriminator="type")]] = LEFT_OUT
    only: Only = LEFT_OUT
    labels: dict[str, str] | None = None
    anything: dict[str, object] = LEFT_OUT


PICTURE: TypeAdapter[object] = TypeAdapter(Picture)


def problem_of(value):
    with pytest.raises(ShapeError) as error:
        read(PICTURE, value)
    problem = error.value.problem
    return problem.kind, ".".join(str(key) for key in problem.path)


def test_nulls_of_optional_fields_are_left_out_and_others_stay():
    value = {
        "title": None,
        "limit": 3,
        "labels": None,
        "anything": {"a": None},
        "shapes": [{"type": "square", "square": {"name": "x", "size": None, "note": None}}],
    }
    assert read(PICTURE, value) == {
        "limit": 3,
        "labels": None,
        "anything": {"a": None},
        "shapes": [{"type": "square", "square": {"name": "x", "note": None}}],
    }


def test_numbers_stay_as_they_were_sent():
    shapes = [{"type": "circle", "radius": 1}, {"type": "circle", "radius": 0.5}]
    found = read(PICTURE, {"shapes": shapes})
    assert [type(shape["radius"]) for shape in found["shapes"]] == [int, float]


@pytest.mark.parametrize(
    ("value", "kind", "path"),
    [
        (7, "type", ""),
        ({"colour": 1}, "unknown", "colour"),
        ({"title": {}}, "missing", "title.name"),
        ({"title": {"size": 0, "x": 1}}, "missing", "title.name"),
        ({"title": {"size": 0, "x": 1, "name": "a"}}, "below", "title.size"),
        ({"title": {"x": 1, "size": 0, "name": "a"}}, "unknown", "title.x"),
        ({"title": {"name": "a", "size": 10}}, "above", "title.size"),
        ({"title": {"name": None}}, "type", "title.name"),
        ({"limit": "some"}, "choice", "limit"),
        ({"limit": 0}, "below", "limit"),
        ({"limit": 1.5}, "type", "limit"),
        ({"limit": True}, "type", "limit"),
        ({"labels": {"a": "x", "b": 1}}, "type", "labels.b"),
        ({"shapes": {}}, "type", "shapes"),
        ({"shapes": [{"type": "circle", "radius": 2}]}, "above", "shapes.0.radius"),
        ({"shapes": [{}]}, "missing", "shapes.0.type"),
        ({"shapes": [{"type": "oval"}]}, "choice", "shapes.0.type"),
        ({"shapes": [{"type": None}]}, "type", "shapes.0.type"),
        ({"shapes": [{"type": "circle"}]}, "missing", "shapes.0.radius"),
        # The name of the union's member is also the name of a field.
        ({"shapes": [{"type": "square", "square": 7}]}, "type", "shapes.0.square"),
        ({"shapes": [{"type": "square", "square": {}}]}, "missing", "shapes.0.square.name"),
        ({"only": {"wide": 1}}, "missing", "only.type"),
        ({"only": {"wide": 1, "type": "other"}}, "choice", "only.type"),
        ({"only": {"wide": 1, "type": 7}}, "type", "only.type"),
        ({"only": {"wide": 1, "type": "only"}}, "type", "only.wide"),
    ],
)
def test_first_problem_of_a_value_is_reported(value, kind, path):
    assert problem_of(value) == (kind, path)


def test_problem_names_what_is_accepted():
    with pytest.raises(ShapeError) as error:
        read(PICTURE, {"title": 7})
    assert error.value.problem.wanted == ("string", "object")
    with pytest.raises(ShapeError) as error:
        read(PICTURE, {"limit": None, "shapes": [{"type": "oval"}]})
    assert (error.value.problem.choices, error.value.problem.value) == (
        "'circle', 'square'",
        "oval",
    )
    with pytest.raises(ShapeError) as error:
        read(PICTURE, {"limit": "some"})
    assert error.value.problem.choices == "'none'"
    with pytest.raises(ShapeError) as error:
        read(PICTURE, {"limit": -1})
    assert error.value.problem.bound == 1


def test_very_many_problems_are_sorted_quickly():
    value = {f"key{index}": index for index in range(20_000)}
    assert problem_of(value) == ("unknown", "key0")
