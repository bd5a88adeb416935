"""Secrets: keys of services are found and masked; what only looks like one is left alone."""

import json

import pytest

from support.rule_findings import chat, codes_of_kind, in_line, in_text

SECRETS = codes_of_kind("text", "FTB400", "FTB401", "FTB402", "FTB403")

# Made up, and cut in two so that nothing that reads the sources takes them for real.
LETTERS = "Zk3Q8vN1xT7bL5mW9cR2yH6dJ4sF0aGuPe8Kt3XwVq5B"
HEX = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
KEYS = [
    ("Anthropic", "sk-ant-" + "api03-" + LETTERS),
    ("OpenRouter", "sk-or-v1-" + HEX),
    ("OpenAI", "sk-" + "proj-" + LETTERS),
    ("OpenAI", "sk-" + LETTERS),
    ("AWS", "AKIA" + "Q3EGRZ5ZTVBK2WNL"),
    ("AWS secret", "aws_secret_access_key = '" + (LETTERS[:20] + "/" + LETTERS[:19]) + "'"),
    ("Google", "AIza" + LETTERS[:35]),
    ("Google OAuth", "GOCSPX-" + LETTERS[:28]),
    ("GitHub", "ghp_" + LETTERS[:36]),
    ("GitHub", "github_pat_" + LETTERS[:22] + "_" + LETTERS + LETTERS[:15]),
    ("GitLab", "glpat-" + LETTERS[:20]),
    ("Slack", "xoxb-" + "2489572340-2387452093847-" + LETTERS[:24]),
    ("Stripe", "sk_" + "live_" + LETTERS[:24]),
    ("Hugging Face", "hf_" + LETTERS[:34]),
    ("SendGrid", "SG." + LETTERS[:22] + "." + LETTERS[:43]),
    ("Twilio", "SK" + HEX[:32]),
    ("npm", "npm_" + LETTERS[:36]),
    ("PyPI", "pypi-" + "AgEIcHlwaS5vcmc" + LETTERS),
    ("Groq", "gsk_" + LETTERS),
    ("Databricks", "dapi" + HEX[:32]),
    ("Telegram", "1234598760:" + "AA" + LETTERS[:33]),
    ("Azure storage", "AccountKey=" + (LETTERS + "+/" + LETTERS)[:86] + "=="),
]


@pytest.mark.parametrize(
    ("service", "key"), KEYS, ids=[f"{service}-{index}" for index, (service, _) in enumerate(KEYS)]
)
@pytest.mark.parametrize(
    "around", ["{}", "export TOKEN={}\nnext", 'headers = {{"Authorization": "Bearer {}"}}', "({})", "用{}吧"]
)
def test_a_key_is_told_with_its_service_and_never_shown(service, key, around):
    text = around.format(key)
    [result] = in_text(text, "FTB400")
    assert f"key of {service} (" in result.message
    assert result.secret
    assert text[slice(*result.span)] in key
    secret = key.split("=")[-1].strip(" '=")
    assert all(secret[at : at + 8] not in result.message for at in range(4, len(secret) - 8))


def test_a_key_in_a_plain_line_is_found_by_the_screen_and_warns():
    raw = json.dumps(chat(f"use {KEYS[2][1]}")).encode()
    [result] = in_line(b"\n".join([json.dumps(chat()).encode()] * 50 + [raw]), "FTB400")
    assert (result.line, result.severity, result.field) == (51, "warning", "messages[0].content")


def test_a_key_out_of_documentation_is_advice():
    [result] = in_text("AKIA" + "IOSFODNN7EXAMPLE", "FTB400")
    assert result.severity == "info"


def test_private_keys_tokens_and_passwords_are_found():
    body = "\n".join([LETTERS + LETTERS[:20]] * 8)
    for kind in ("", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED "):
        pem = f"-----BEGIN {kind}PRIVATE KEY-----\n{body}\n-----END {kind}PRIVATE KEY-----"
        [result] = in_text(f"cat key\n{pem}\n", "FTB401")
        assert result.secret
        assert LETTERS[:8] not in result.message
        [result] = in_text(pem.replace("\n", "\\n"), "FTB401")
    pgp = f"-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: GnuPG v2\n\n{body}\n"
    assert [result.code for result in in_text(pgp, "FTB401")] == ["FTB401"]

    token = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9." + "eyJzdWIiOiI0MiJ9." + LETTERS
    [result] = in_text(f"Authorization: Bearer {token}", "FTB402")
    assert result.secret
    assert result.message.startswith("holds a JSON Web Token (eyJh…")

    [result] = in_text("DATABASE_URL=mysql://shop:" + "pT9-xW2k@10.0.0.5/shop", "FTB403")
    assert result.message.startswith("holds a URL with a password (://s…:•••@10.0.0.5)")
    [result] = in_text("redis://:" + "pT9xW2kLq@cache:6379/0", "FTB403")
    assert result.secret


LOOK_ALIKES = [
    "sk-estimator-html-representation-container",
    "sk-learn, task-based, risk-adjusted-return-on-capital-employed",
    "the prefix sk- is followed by 48 characters",
    "sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "OPENAI_API_KEY=sk-your-api-key-goes-here-1234",
    "sk-proj-XXXXXXXXXXXXXXXXXXXXXXXXXXXX",
    "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "github_pat_ is the new prefix",
    "hf_hub_download(repo_id='x', filename='model.safetensors')",
    "hf_transfer_enable_progress_bar_and_logging_now",
    "npm_config_registry_and_another_setting_of_npm",
    "xoxo, hugs",
    "AKIA begins access key ids",
    "SKU 0123456789",
    f"sha256:{HEX}",
    f"commit {HEX[:40]}",
    "123e4567-e89b-12d3-a456-426614174000",
    "a_very_long_identifier_name_in_snake_case_with_numbers_123",
    "----------------------------------------------------------",
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4",
    "-----BEGIN PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
    "-----BEGIN PUBLIC KEY-----\n" + LETTERS * 3,
    "-----BEGIN CERTIFICATE-----\n" + LETTERS * 3,
    "eyJhbGciOiJIUzI1NiJ9 is a header alone",
    "eyJ.eyJ.sig",
    "https://example.com:8080/path@2x",
    "postgres://user:password@localhost/db",
    "postgres://postgres:postgres@db:5432/app",
    "https://user:${TOKEN}@github.com/org/repo",
    "https://user:<password>@host.com",
    "mongodb://admin:****@host",
    "ftp://ann:k7Rw2vQx@ftp.example.com",
    "http://localhost:8080,ann@host",
    "git@github.com:org/repo.git and ssh://git@host:22/repo",
    "AccountKey=<your key>",
    "1234567890:not-a-bot",
]


@pytest.mark.parametrize("text", LOOK_ALIKES, ids=range(len(LOOK_ALIKES)))
def test_what_only_looks_like_a_secret_is_left_alone(text):
    assert in_text(text, *SECRETS) == []
