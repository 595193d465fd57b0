# A version of the model and nothing else, mounted into Triton's pods as an image volume. Context: what `export` wrote.
FROM scratch
COPY . /version
