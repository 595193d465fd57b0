# A version of the model and nothing else, mounted into Triton's pods as an image volume. Context: what `export` wrote, after
# its gate. (The target `model` of model_repository/Dockerfile exports on its own, without a gate: for development.)
FROM scratch
COPY . /version
ARG VERSION=0.0.0-dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Whisper for Whisperline" \
      org.opencontainers.image.source="https://github.com/whisperline/whisperline" \
      org.opencontainers.image.licenses="MIT AND Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
