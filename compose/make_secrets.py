"""Create the secrets of compose.yaml at the first start, as files named like settings. Existing files stay."""

from pathlib import Path
from secrets import token_urlsafe

SECRETS = Path("/secrets")


def kept(folder: str, name: str, value: str) -> str:
    """Return the secret in this file. Write the file first if it does not exist, whole or not at all."""
    path = SECRETS / folder / name
    if not path.exists():
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text(value)
        unfinished.chmod(0o444)  # only the containers that are to read it have its volume
        unfinished.rename(path)
    return path.read_text()


def main() -> None:
    """Create a token secret, and a password for the database and its clients."""
    password = kept("postgres", "postgres_password", token_urlsafe(32))
    url = f"postgresql://whisperline:{password}@postgres:5432/whisperline"
    kept("gateway", "whisperline_gateway_token_secret", token_urlsafe(32))
    for owner in ("gateway", "persistence"):
        kept(owner, f"whisperline_{owner}_database_url", url)


if __name__ == "__main__":
    main()
