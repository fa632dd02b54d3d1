package pluginpolicy

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	goproto "google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/portolan-project/portolan/internal/broker/policy/pluginpolicy/proto"
	"github.com/portolan-project/portolan/internal/testenv"
)

// The generated files are those of policy.proto: they are compared by the description
// in them, which any version of protoc gives.
func TestGenerated(t *testing.T) {
	testenv.Tool(t, "protoc", "protobuf-compiler")
	set := filepath.Join(t.TempDir(), "set")
	if out, err := exec.Command("protoc", "-Iproto", "--descriptor_set_out="+set, "policy.proto").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	data, err := os.ReadFile(set)
	if err != nil {
		t.Fatal(err)
	}
	var files descriptorpb.FileDescriptorSet
	if err := goproto.Unmarshal(data, &files); err != nil {
		t.Fatal(err)
	}
	if !goproto.Equal(files.File[0], protodesc.ToFileDescriptorProto(proto.File_policy_proto)) {
		t.Error("policy.pb.go is not that of policy.proto: run proto/generate.sh")
	}
}
