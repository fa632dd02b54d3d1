package etcd

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/store"
)

// What asStored lets through is what comes back from the store, field by field; a field
// that is added to Status is tried here by itself.
func TestAsStored(t *testing.T) {
	try := func(name string, st store.Status) {
		b, err := encodeStatus(fmt.Sprintf("%0*d", digestSize, 0), &st)
		if err != nil {
			t.Fatal(name, err)
		}
		_, back, err := decodeStatus(b)
		if err != nil {
			t.Fatal(name, err)
		}
		if asStored(&st) && !reflect.DeepEqual(st, back) {
			t.Errorf("%s: %+v comes back as %+v", name, st, back)
		}
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[store.Status]()) {
		for _, text := range []string{"some <text> \u2028", "\xff"} {
			var st store.Status
			v := reflect.ValueOf(&st).Elem().FieldByIndex(f.Index)
			switch k := f.Type.Kind(); {
			case k == reflect.String:
				v.SetString(text)
			case k == reflect.Bool:
				v.SetBool(true)
			case k == reflect.Int, k == reflect.Int64:
				v.SetInt(7)
			case k == reflect.Slice:
				v.Set(reflect.MakeSlice(f.Type, 0, 0)) // which comes back as nil
			case k == reflect.Pointer:
				v.Set(reflect.New(f.Type.Elem()))
				if asStored(&st) {
					t.Errorf("%s is shared with the caller", f.Name)
				}
			case f.Type == reflect.TypeFor[time.Time]():
				v.Set(reflect.ValueOf(time.Now()))
			default:
				t.Fatalf("a %s is not tried yet", f.Type)
			}
			try(f.Name, st)
		}
	}
	plain := store.Status{Phase: "queued", Reason: "accepted", VO: "bio", Gateway: "g", CPUs: 4, Sequence: 1}
	if try("plain", plain); !asStored(&plain) {
		t.Error("a new job's status is decoded again")
	}
}
