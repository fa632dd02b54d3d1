package bes_test

import (
	"context"
	"reflect"
	"testing"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
)

// What is matched comes back as it was said, and nothing is created.
func TestMatchActivity(t *testing.T) {
	w := newWorld(t, bes.ServerOptions{}, soap.V12)
	ctx := context.Background()
	for _, stopped := range []bool{false, true} {
		if stopped {
			if err := w.StopAcceptingNewActivities(ctx); err != nil {
				t.Fatal(err)
			}
		}
		req := &bes.CreateActivityRequest{Document: []byte(job)}
		want, _ := w.svc.MatchActivity(ctx, req)
		got, err := w.MatchActivity(ctx, req)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%v\n%+v\nwant %+v", err, got, want)
		}
	}
	fa, err := w.GetFactoryAttributesDocument(ctx)
	if err != nil || fa.TotalNumberOfActivities != 0 {
		t.Errorf("%v: %d activities", err, fa.TotalNumberOfActivities)
	}
	if _, err := w.MatchActivity(ctx, &bes.CreateActivityRequest{Document: []byte("<a/>")}); !fail.Is(err, fail.Invalid) {
		t.Errorf("no job: %v", err)
	}
}
