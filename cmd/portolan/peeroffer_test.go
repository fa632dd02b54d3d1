package main

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/identity"
	"github.com/portolan-project/portolan/peers"
)

// TestPinning is what adding a peer does: look, compare, pin.
func TestPinning(t *testing.T) {
	bsc, fiu := keeperOf(t, t.TempDir(), bscConfig), keeperOf(t, t.TempDir(), fiuConfig)
	ctx, cancel := context.WithCancel(t.Context())
	group, ctx := errgroup.WithContext(ctx)
	stop := servePeers(ctx, group, bsc, peers.NewServer(peers.ServerOptions{Trust: bsc.gateway}), nil)
	o, err := fiu.inspect(ctx, bsc.url)
	if err != nil {
		t.Fatal(err)
	}
	if o.Domain != "bsc.example" || o.Fingerprint != bsc.gateway.Current().Pin().String() || o.Trusted || o.Problem != "" || !strings.Contains(o.Subject, "bsc.example") {
		t.Errorf("%+v", o)
	}
	other := identity.Pin{1}
	for _, c := range []struct {
		domain, key string
		kind        fail.Kind
		want        string
	}{
		{"bsc.example", other.String(), fail.Conflict, "not the one that was compared"},
		{"ibm.example", o.Fingerprint, fail.Conflict, "is not of ibm.example"},
		{"fiu.example", o.Fingerprint, fail.Conflict, "own domain"},
		{"../x", o.Fingerprint, fail.Invalid, "named like a host"},
		{"bsc.example", "x", fail.Invalid, "no fingerprint"},
	} {
		if err := fiu.pin(ctx, bsc.url, c.domain, c.key, "ada"); !fail.Is(err, c.kind) || !strings.Contains(fail.Sentence(err), c.want) {
			t.Errorf("%s %s: %v", c.domain, c.key, err)
		}
	}
	if fiu.gateway.Trusted.Knows("bsc.example") {
		t.Error("what was refused is trusted")
	}
	for range 2 {
		if err := fiu.pin(ctx, bsc.url, "bsc.example", o.Fingerprint, "ada"); err != nil {
			t.Fatal(err)
		}
	}
	if o, err = fiu.inspect(ctx, bsc.url); err != nil || !o.Trusted {
		t.Errorf("%+v %v", o, err)
	}
	list, err := (identity.Store{Dir: filepath.Join(fiu.store.Dir)}).List()
	if err != nil || len(list) != 1 || list[0].By != "ada" || time.Since(list[0].At) > time.Hour {
		t.Errorf("%+v %v", list, err)
	}
	if o, err = bsc.inspect(ctx, bsc.url); err != nil || !strings.Contains(o.Problem, "no peer of its own") {
		t.Errorf("%+v %v", o, err)
	}
	if _, err := fiu.inspect(ctx, "ftp://x"); !fail.Is(err, fail.Invalid) {
		t.Error(err)
	}
	stop()
	cancel()
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

// TestConfiguredStays: what the configuration names is not changed by command.
func TestConfiguredStays(t *testing.T) {
	k := keeperOf(t, t.TempDir(), bscConfig+`  trust: {fiu.example: {key: "`+identity.Pin{1}.String()+`"}}`+"\n")
	if err := k.pin(t.Context(), "https://127.0.0.1:1/peer", "fiu.example", identity.Pin{1}.String(), ""); !fail.Is(err, fail.Conflict) {
		t.Error(err)
	}
}
