package together_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/portolan-project/portolan/internal/store"
)

var noOptions store.RecordOptions

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		child()
		return
	}
	goleak.VerifyTestMain(m)
}

const childEnv = "PORTOLAN_TOGETHER_CHILD"

func child() {}
