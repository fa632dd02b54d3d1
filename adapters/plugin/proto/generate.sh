#!/bin/sh
# Makes the generated files anew: adapter.pb.go and adapter_grpc.pb.go here, and
# adapter_pb2.py of the Python example. It needs protoc (Debian's protobuf-compiler),
# and protoc-gen-go and protoc-gen-go-grpc in $PATH or in $(go env GOPATH)/bin. With an
# argument it writes below that directory instead, for a test to compare.
set -eu
cd "$(dirname "$0")"
out=${1:-.}
python=${1:-../examples/python}
PATH=$PATH:$(go env GOPATH)/bin
protoc --go_out="$out" --go_opt=paths=source_relative \
	--go-grpc_out="$out" --go-grpc_opt=paths=source_relative adapter.proto
protoc --python_out="$python" adapter.proto
