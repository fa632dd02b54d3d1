package program

import (
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestLeaseFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), NameLease)
	known := time.Date(2026, 11, 29, 8, 0, 0, 0, time.UTC)
	for _, c := range []struct{ write, want time.Duration }{{0, 0}, {-time.Hour, 0}, {time.Hour, time.Hour}, {time.Minute, time.Hour}, {2 * time.Hour, 2 * time.Hour}} {
		if err := WriteLease(path, known, known.Add(c.write)); err != nil {
			t.Fatal(err)
		}
		if got := ReadLease(path, known, os.Getuid()); !got.Equal(known.Add(c.want)) {
			t.Errorf("after %v it is %v", c.write, got.Sub(known))
		}
	}
	if got := ReadLease(path, known, os.Getuid()+1); !got.Equal(known) {
		t.Errorf("a file of somebody else's is heeded: %v", got)
	}
	for _, bad := range []string{"", "tomorrow", "2026-11-29T08:00:00"} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := ReadLease(path, known, -1); !got.Equal(known) {
			t.Errorf("%q is read as %v", bad, got)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", path); err != nil {
		t.Fatal(err)
	}
	if got := ReadLease(path, known, -1); !got.Equal(known) {
		t.Errorf("a link is followed: %v", got)
	}
}

func TestLeaseKeep(t *testing.T) {
	for _, c := range []struct {
		name         string
		length       time.Duration
		extend       time.Duration // at half of it; 0: not
		notice, ends time.Duration // before the end; after the beginning
	}{
		{"notice", time.Minute, 0, 10 * time.Second, time.Minute},
		{"a short one is not all notice", 8 * time.Second, 0, 2 * time.Second, 8 * time.Second},
		{"extended", time.Minute, time.Hour, 10 * time.Second, time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				var until atomic.Int64
				until.Store(int64(c.length))
				if c.extend > 0 {
					time.AfterFunc(c.length/2, func() { until.Store(int64(c.extend)) })
				}
				l := Lease{Read: func() time.Time { return began.Add(time.Duration(until.Load())) }, Began: began, Grace: 10 * time.Second}
				var within time.Duration
				l.Keep(nil, func(w time.Duration) { within = w })
				if within != c.notice {
					t.Errorf("it gets %v", within)
				}
				if took := time.Since(began) + within + LeaseMargin; took != c.ends {
					t.Errorf("it ends after %v", took)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		done := make(chan struct{})
		time.AfterFunc(time.Second, func() { close(done) })
		Lease{Read: func() time.Time { return time.Now().Add(time.Hour) }, Began: time.Now()}.Keep(done, func(time.Duration) { t.Error("it ends") })
	})
}
