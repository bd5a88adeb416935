"""Templates: what they fill in, and what they say when they cannot."""

import pytest

from ftbridge.graders.template import GraderError, VariableMissing, render, variables

ITEM = {
    "reference": "Paris",
    "tags": [{"name": "capital", "ids": [3, 5]}, "plain"],
    "count": 2,
    "ratio": 0.5,
    "flag": True,
    "none": None,
    "empty": "",
    "my-key": "dashed",
    "größe": "ü",
}
SAMPLE = {"output_text": "It is Paris."}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{item.reference}}", "Paris"),
        ("{{ item.reference }}", "Paris"),
        ("{{\titem.reference\n}}", "Paris"),
        ("Answer: {{ sample.output_text }} / {{item.reference}}!", "Answer: It is Paris. / Paris!"),
        ("{{item.tags[0].name}}", "capital"),
        ("{{ item.tags[0].ids[1] }}", "5"),
        ("{{ item.tags[1] }}", "plain"),
        ("{{ item.tags[0] }}", '{"name": "capital", "ids": [3, 5]}'),
        ("{{ item.count }} {{ item.ratio }} {{ item.flag }} {{ item.none }}", "2 0.5 true null"),
        ("{{item.empty}}", ""),
        ("{{ item.my-key }} {{ item.größe }}", "dashed ü"),
        ('{"a": {"b": 1}}', '{"a": {"b": 1}}'),
        ("{ item.reference }", "{ item.reference }"),
        ("", ""),
    ],
)
def test_variables_become_their_values_and_the_rest_stays(template, text):
    assert render(template, ITEM, SAMPLE, grader="g") == text


def test_values_are_not_read_as_templates_again():
    item = {"reference": "{{ sample.output_text }}"}
    assert render("{{item.reference}}", item, SAMPLE, grader="g") == "{{ sample.output_text }}"


def test_attributes_of_python_objects_are_out_of_reach():
    for template in ("{{ item.__class__ }}", "{{ item.reference.__len__ }}", "{{ item.tags.count }}"):
        with pytest.raises(GraderError):
            render(template, ITEM, SAMPLE, grader="g")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ item.label }}", ["{{ item.label }} is not there", "item has the keys reference, tags"]),
        ("{{ item.tags[2] }}", ["{{ item.tags[2] }}", "item.tags has 2 elements"]),
        ("{{ item.tags[0].ids[9] }}", ["item.tags[0].ids has 2 elements"]),
        ("{{ item.tags[0].nam }}", ["item.tags[0] has the keys name, ids"]),
        ("{{ item.reference.x }}", ["item.reference is text and has no keys"]),
        ("{{ item.reference[0] }}", ["item.reference is text, not a list"]),
        ("{{ item.none.x }}", ["item.none is null and has no keys"]),
        ("{{ sample.output_json }}", ["sample has the keys output_text"]),
    ],
)
def test_what_is_not_there_is_named_with_what_is(template, words):
    with pytest.raises(GraderError) as caught:
        render(template, ITEM, SAMPLE, grader="exact")
    assert str(caught.value).startswith("grader exact: ")
    for word in words:
        assert word in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "template",
    [
        "{{ reference }}",
        "{{ example.reference }}",
        "{{ item }}",
        "{{ item. }}",
        "{{ item..x }}",
        "{{ item.a b }}",
        "{{ item.tags[x] }}",
        "{{ item.tags[-1] }}",
        "{{}}",
        "{{ item.reference",
        "{{ item.a }} and {{ item.b",
        "{{ a {{ item.reference }}",
        "{{ item.x | upper }}",
    ],
)
def test_a_template_that_cannot_be_read_is_refused_with_how_to_write_it(template):
    with pytest.raises(GraderError, match=r"grader exact: .*\n.*\{\{ item\.KEY \}\}"):
        variables(template, grader="exact")


def test_variables_are_listed_once_in_order():
    template = "{{sample.output_text}} {{ item.tags[0].name }} {{ sample.output_text }} {{item.reference}}"
    assert variables(template) == ["sample.output_text", "item.tags[0].name", "item.reference"]
    assert variables("no variables, {braces} only") == []


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{item.labels['first choice']}}", "a"),
        ('{{ item.labels["first choice"] }}', "a"),
        ("{{item['labels']['a.b']}}", "dot"),
        ("{{item.labels['}}']}}", "braces"),
        ("{{item.labels['it\\'s']}}", "quote"),
        ("{{item.labels['x'][1]}}", "2"),
        ("{{item['with space'].labels}}", "deep"),
    ],
)
def test_a_key_of_any_letters_stands_in_brackets_and_quotes(template, text):
    labels = {"first choice": "a", "a.b": "dot", "}}": "braces", "it's": "quote", "x": [1, 2]}
    assert render(template, {"labels": labels, "with space": {"labels": "deep"}}, {}, grader="g") == text


def test_a_quoted_key_that_is_not_there_is_named():
    with pytest.raises(VariableMissing, match=r"item\.labels has the keys a"):
        render("{{item.labels['b c']}}", {"labels": {"a": 1}}, {}, grader="g")
