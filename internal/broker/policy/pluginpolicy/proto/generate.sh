#!/bin/sh
# Makes the generated files anew: policy.pb.go and policy_grpc.pb.go. It needs protoc
# (Debian's protobuf-compiler and libprotobuf-dev), and protoc-gen-go and
# protoc-gen-go-grpc in $PATH or in $(go env GOPATH)/bin.
set -eu
cd "$(dirname "$0")"
PATH=$PATH:$(go env GOPATH)/bin
protoc --go_out=. --go_opt=paths=source_relative \
	--go-grpc_out=. --go-grpc_opt=paths=source_relative policy.proto
