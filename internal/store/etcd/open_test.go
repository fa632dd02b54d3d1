package etcd_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store/etcd"
)

func TestOptions(t *testing.T) {
	for what, o := range map[string]etcd.Options{
		"nothing":        {},
		"both":           {Dir: "x", Endpoints: []string{"127.0.0.1:1"}},
		"a tiny quota":   {Dir: "x", QuotaBytes: 1},
		"a short lease":  {Dir: "x", LeaseTTL: time.Millisecond},
		"no reserve":     {Dir: "x", ReserveBytes: -1},
		"busy compactor": {Dir: "x", CompactionInterval: time.Millisecond},
	} {
		_, err := etcd.Open(t.Context(), o)
		if e, ok := errors.AsType[*fail.Error](err); !ok || e.Kind != fail.Invalid || e.Public == "" {
			t.Errorf("%s gave %v", what, err)
		}
	}
}

func refusal(t *testing.T, o etcd.Options, kind fail.Kind, words string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s, err := etcd.Open(ctx, o)
	if err == nil {
		_ = s.Close()
	}
	if e, ok := errors.AsType[*fail.Error](err); !ok || e.Kind != kind || !strings.Contains(e.Public, words) {
		t.Errorf("Open gave %v; want one of kind %q that says %q", err, kind, words)
	}
}

func TestDirectoryInUse(t *testing.T) {
	dir := t.TempDir()
	s := open(t, etcd.Options{Dir: dir})
	refusal(t, etcd.Options{Dir: dir}, fail.Invalid, "in use by another gateway")
	if err := s.Health(t.Context()); err != nil {
		t.Errorf("the first is disturbed: %v", err)
	}
	_ = s.Close()
	open(t, etcd.Options{Dir: dir})
}

func TestDirectoryUnusable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refusal(t, etcd.Options{Dir: file}, fail.Invalid, "cannot be")
	refusal(t, etcd.Options{Dir: filepath.Join(file, "below")}, fail.Invalid, "cannot be made")
}

// TestSeveralOnOneMachine: nothing of one store stands in the way of another.
func TestSeveralOnOneMachine(t *testing.T) {
	for range 3 {
		open(t, etcd.Options{Dir: t.TempDir()})
	}
}

func TestSchema(t *testing.T) {
	for version, kind := range map[string]fail.Kind{"2": fail.Unsupported, "99": fail.Unsupported, "x": fail.Invalid, "0": fail.Invalid, "": fail.Invalid} {
		dir := t.TempDir()
		s := open(t, etcd.Options{Dir: dir})
		if _, err := etcd.Client(s).Put(t.Context(), "/portolan/v1/schema", version); err != nil {
			t.Fatal(err)
		}
		_ = s.Close()
		refusal(t, etcd.Options{Dir: dir}, kind, "schema version")
	}
}

func TestClusterOutOfReach(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for ten seconds")
	}
	t.Parallel()
	refusal(t, etcd.Options{Endpoints: []string{"127.0.0.1:1"}}, fail.Unavailable, "127.0.0.1:1")
}
