package etcd_test

import (
	"errors"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/store/etcd"
)

// TestRecordAnswerLost: a write whose answer was lost is sent again, and what is there
// tells whether the first one had arrived; an alike write of another is not taken for it.
func TestRecordAnswerLost(t *testing.T) {
	type transaction = func() (*clientv3.TxnResponse, error)
	errGone := errors.New("the connection went away")
	change := store.RecordChange{Key: "k", Value: []byte("2")}
	for name, test := range map[string]struct {
		change  store.RecordChange
		arrives bool // the first one, whose answer is lost
		then    func(t *testing.T, s *etcd.Store)
		kind    fail.Kind // of the error; Internal: none
		want    string
	}{
		"it had arrived":                  {change: change, arrives: true, want: "2"},
		"it had not":                      {change: change, want: "2"},
		"another wrote the same":          {change: change, then: another("2"), kind: fail.Uncertain, want: "2"},
		"another wrote over it":           {change: change, arrives: true, then: another("3"), kind: fail.Uncertain, want: "3"},
		"a removal had arrived":           {change: store.RecordChange{Key: "k"}, arrives: true, kind: fail.Uncertain},
		"a removal had not":               {change: store.RecordChange{Key: "k"}},
		"a removal of anything":           {change: store.RecordChange{Key: "k", If: -1}, arrives: true},
		"anything, and another was there": {change: store.RecordChange{Key: "k", Value: []byte("2"), If: -1}, then: another("3"), want: "2"},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, etcd.Options{Dir: t.TempDir()})
			at, err := s.PutRecords(t.Context(), nil, store.RecordChange{Key: "k", Value: []byte("1")})
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			etcd.Interrupt(s, func(send transaction) (*clientv3.TxnResponse, error) {
				if n++; n != 2 { // the first reads
					return send()
				}
				if test.arrives {
					if _, err := send(); err != nil {
						return nil, err
					}
				}
				if test.then != nil {
					test.then(t, s)
				}
				return nil, errGone
			})
			c := test.change
			if c.If == 0 {
				c.If = at
			}
			revision, err := s.PutRecords(t.Context(), nil, c)
			if test.kind != fail.Internal {
				wantKind(t, err, test.kind)
			} else if err != nil {
				t.Fatal(err)
			}
			found, _, err := s.ListRecords(t.Context(), "k", store.RecordOptions{})
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, r := range found {
				got = string(r.Value)
				if test.kind == fail.Internal && r.Revision != revision {
					t.Errorf("PutRecords gave revision %d; the record has %d", revision, r.Revision)
				}
			}
			if got != test.want {
				t.Errorf("the record is %q; want %q", got, test.want)
			}
		})
	}
}

// another writes the record past the store's own way.
func another(value string) func(*testing.T, *etcd.Store) {
	return func(t *testing.T, s *etcd.Store) {
		if _, err := etcd.Client(s).Put(t.Context(), "/portolan/v1/r/k", "sixteen bytes ..."[:16]+value); err != nil {
			t.Error(err)
		}
	}
}

func wantKind(t testing.TB, err error, kind fail.Kind) {
	t.Helper()
	if e, ok := errors.AsType[*fail.Error](err); !ok || e.Kind != kind {
		t.Errorf("the error is %v; want one of kind %q", err, kind)
	}
}
