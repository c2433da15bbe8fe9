"""The clouds' real libraries against fakes of the services that hand out credentials."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ccr_control.core.completion import filled
from ccr_control.core.material import AwsKey, Material
from ccr_control.core.provider_schema import ProviderConfig
from ccr_control.credentials.searching import NotFound, search_for
from support.identity import Identity, claims, running_identity, service_account
from support.tls import make_certificates

IAM = "iamcredentials.googleapis.com"
TENANT = "11111111-2222-3333-4444-555555555555"
ROLE = "arn:aws:iam::123456789012:role/relay"


@pytest.fixture(autouse=True)
def _no_cloud_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing that happens to be set up here may be found."""
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "absent"))
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("NO_GCE_CHECK", "true")


@pytest.fixture
def cloud() -> Iterator[Identity]:
    with running_identity() as identity:
        yield identity


def found(**fields: Any) -> Material:
    """What the search of a provider's only key finds."""
    fields.setdefault("name", "p")
    provider = filled(ProviderConfig.model_validate(fields))
    (key,) = provider.keys
    search = search_for(provider, key)
    assert search is not None
    return search()


def aws(**how: Any) -> Material:
    return found(type="bedrock", region="eu-west-1", aws=how)


def google(**how: Any) -> Material:
    return found(type="vertex", project="my-project", google=how)


def entra(**how: Any) -> Material:
    return found(type="azure", resource="r", entra=how)


def is_hour_from_now(material: Material) -> bool:
    assert material.expires_at_s is not None
    return abs(material.expires_at_s - time.time() - 3600) < 60


# --- AWS


def test_a_role_is_assumed_with_a_key_that_is_written_out(cloud: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    """STS signs for the region of the provider, and gets the external id that the role's policy asks for."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", cloud.origin)

    material = aws(access_key_id="AKIDEXAMPLE", secret_access_key="s", role_arn=ROLE, external_id="relay-1")

    assert material.value == AwsKey("ASIA-KEY-1", "sts-secret-1", "sts-token-1")
    assert is_hour_from_now(material)
    asked = cloud.newest("/")
    assert asked["said"]["Action"] == "AssumeRole"
    assert (asked["said"]["RoleArn"], asked["said"]["ExternalId"]) == (ROLE, "relay-1")
    assert "AKIDEXAMPLE/" in asked["headers"]["authorization"]
    assert "/eu-west-1/sts/" in asked["headers"]["authorization"]


def test_a_profile_may_assume_a_role_by_itself(
    cloud: Identity, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text(f"[profile relay]\nrole_arn = {ROLE}\nsource_profile = base\nregion = us-east-1\n")
    credentials = tmp_path / "credentials"
    credentials.write_text("[base]\naws_access_key_id = AKIDBASE\naws_secret_access_key = base-secret\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", cloud.origin)

    material = aws(profile="relay")

    assert material.value == AwsKey("ASIA-KEY-1", "sts-secret-1", "sts-token-1")
    assert is_hour_from_now(material)
    assert "AKIDBASE/" in cloud.newest("/")["headers"]["authorization"]


def test_a_profile_with_a_key_has_no_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.write_text("[base]\naws_access_key_id = AKIDBASE\naws_secret_access_key = base-secret\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))

    assert aws(profile="base") == Material(AwsKey("AKIDBASE", "base-secret", ""), None)


def test_a_file_that_changed_is_read_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Operators rotate keys by writing the file; nothing may come from a cache."""
    credentials = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    for number in (1, 2):
        credentials.write_text(f"[default]\naws_access_key_id = AKID{number}\naws_secret_access_key = s\n")
        assert aws().value == AwsKey(f"AKID{number}", "s", "")


def test_a_web_identity_is_exchanged_and_read_anew(
    cloud: Identity, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Kubernetes rotates the token in its file."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", cloud.origin)
    file = tmp_path / "token"
    for token in ("first-token", "second-token"):
        file.write_text(f"{token}\n")
        material = aws(role_arn=ROLE, web_identity_token_file=str(file))
        asked = cloud.newest("/")
        assert isinstance(material.value, AwsKey)
        assert asked["said"]["Action"] == "AssumeRoleWithWebIdentity"
        assert asked["said"]["WebIdentityToken"] == token
        assert "authorization" not in asked["headers"]


def test_the_variables_of_kubernetes_are_enough(
    cloud: Identity, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("pod-token")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", cloud.origin)
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))

    material = aws()

    assert is_hour_from_now(material)
    assert cloud.newest("/")["said"]["WebIdentityToken"] == "pod-token"


def test_an_instance_role_is_found_by_imds(cloud: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", cloud.origin)

    material = aws()

    assert material.value == AwsKey("ASIA-KEY-1", "machine-secret-1", "machine-token-1")
    assert is_hour_from_now(material)
    newest = cloud.newest("/latest/meta-data/iam/security-credentials/instance-role")
    assert newest["headers"]["x-aws-ec2-metadata-token"] == "imds-session"


def test_a_container_hands_out_its_role(cloud: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{cloud.origin}/container")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "container-token")

    assert is_hour_from_now(aws())
    assert cloud.newest("/container")["headers"]["authorization"] == "container-token"


def test_where_there_are_no_aws_credentials_that_is_said() -> None:
    with pytest.raises(NotFound, match="found no AWS credentials"):
        aws()


def test_a_refusal_of_sts_says_why_and_shows_no_secret(cloud: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", cloud.origin)
    cloud.is_refusing = True

    with pytest.raises(NotFound) as raised:
        aws(access_key_id="AKIDEXAMPLE", secret_access_key="very-secret-key", role_arn=ROLE)

    assert "AccessDenied" in str(raised.value)
    assert "sts:AssumeRole" in str(raised.value)
    assert "very-secret-key" not in str(raised.value)


def test_an_unknown_profile_is_told_by_name() -> None:
    with pytest.raises(NotFound, match="nobody"):
        aws(profile="nobody")


# --- Google


def test_a_service_account_asks_for_a_token_with_a_signed_grant(cloud: Identity, tmp_path: Path) -> None:
    material = google(credentials_file=str(service_account(tmp_path, f"{cloud.origin}/token")))

    assert material.value == "google-token-1"
    assert is_hour_from_now(material)
    said = claims(cloud.newest("/token")["said"]["assertion"])
    assert said["iss"] == "relay@my-project.iam.gserviceaccount.com"
    assert said["scope"] == "https://www.googleapis.com/auth/cloud-platform"


def test_application_default_credentials_are_the_default(
    cloud: Identity, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = service_account(tmp_path, f"{cloud.origin}/token")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))

    assert google().value == "google-token-1"
    assert google().value == "google-token-2"


def test_a_workload_of_another_cloud_is_federated(cloud: Identity, tmp_path: Path) -> None:
    """Workload identity federation: the machine's own token is exchanged, then a service account's is made from that."""
    file = tmp_path / "federation.json"
    said = {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{cloud.origin}/v1/token",
        "credential_source": {
            "url": f"{cloud.origin}/oidc-token",
            "format": {"type": "json", "subject_token_field_name": "access_token"},
        },
        "service_account_impersonation_url": f"{cloud.origin}/v1/projects/-/serviceAccounts/a@b:generateAccessToken",
    }
    file.write_text(json.dumps(said))

    material = google(credentials_file=str(file))

    assert str(material.value).startswith("impersonated-token-")
    assert is_hour_from_now(material)
    assert cloud.newest("/v1/token")["said"]["subject_token"] == "subject-token-of-the-machine"


def test_a_service_account_is_impersonated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Google's address for that is fixed: the fake stands for it as an https proxy."""
    certificates = make_certificates(tmp_path, IAM)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates.ca_file))
    with running_identity(certificates.server_context()) as cloud:
        monkeypatch.setenv("HTTPS_PROXY", cloud.origin)
        file = service_account(tmp_path, f"{cloud.origin}/token")

        material = google(credentials_file=str(file), impersonate="other@my-project.iam.gserviceaccount.com")

        assert str(material.value).startswith("impersonated-token-")
        assert is_hour_from_now(material)
        path = "/v1/projects/-/serviceAccounts/other@my-project.iam.gserviceaccount.com:generateAccessToken"
        assert cloud.newest(path)["headers"]["authorization"] == "Bearer google-token-1"


def test_where_there_are_no_google_credentials_that_is_said() -> None:
    with pytest.raises(NotFound, match="DefaultCredentialsError"):
        google()


def test_a_refusal_of_google_is_told(cloud: Identity, tmp_path: Path) -> None:
    cloud.is_refusing = True

    with pytest.raises(NotFound, match="not you"):
        google(credentials_file=str(service_account(tmp_path, f"{cloud.origin}/token")))


# --- Entra ID


@pytest.fixture
def tenant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Identity]:
    """Entra ID, which has to be https."""
    certificates = make_certificates(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates.ca_file))
    with running_identity(certificates.server_context(), is_tls=True) as identity:
        yield identity


def test_a_client_secret_gets_a_token_for_the_scope(tenant: Identity) -> None:
    material = entra(
        credential="client-secret", tenant_id=TENANT, client_id="c-1", client_secret="hush", authority=tenant.origin
    )

    assert material.value == "entra-token-1"
    assert is_hour_from_now(material)
    said = tenant.newest(f"/{TENANT}/oauth2/v2.0/token")["said"]
    assert (said["client_id"], said["client_secret"]) == ("c-1", "hush")
    assert said["scope"] == "https://ai.azure.com/.default"


def test_a_workload_identity_is_exchanged_and_read_anew(tenant: Identity, tmp_path: Path) -> None:
    file = tmp_path / "federated"
    for token in ("first-token", "second-token"):
        file.write_text(token)
        material = entra(
            credential="workload-identity",
            tenant_id=TENANT,
            client_id="c-1",
            token_file=str(file),
            authority=tenant.origin,
            scope="https://cognitiveservices.azure.com/.default",
        )
        said = tenant.newest(f"/{TENANT}/oauth2/v2.0/token")["said"]
        assert is_hour_from_now(material)
        assert said["client_assertion"] == token
        assert said["scope"] == "https://cognitiveservices.azure.com/.default"


def test_a_managed_identity_asks_its_machine(cloud: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{cloud.origin}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", "of-this-app")

    material = entra(credential="managed-identity", client_id="c-2")

    assert material.value == "managed-token-1"
    assert is_hour_from_now(material)
    asked = cloud.newest("/msi/token")
    assert asked["headers"]["x-identity-header"] == "of-this-app"
    assert asked["query"]["client_id"] == "c-2"
    assert asked["query"]["resource"] == "https://ai.azure.com"


def test_a_wrong_client_secret_is_told_and_not_shown(tenant: Identity) -> None:
    tenant.is_refusing = True

    with pytest.raises(NotFound) as raised:
        entra(
            credential="client-secret", tenant_id=TENANT, client_id="c-1", client_secret="hush", authority=tenant.origin
        )

    assert "not you" in str(raised.value)
    assert "hush" not in str(raised.value)
