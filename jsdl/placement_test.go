package jsdl

import (
	"fmt"
	"reflect"
	"testing"
	"time"
)

func placement(inner string) []byte {
	return fmt.Appendf(nil, `<j:JobDefinition xmlns:j="%s"><j:JobDescription><j:Resources><p:Placement xmlns:p="%s">%s</p:Placement></j:Resources></j:JobDescription></j:JobDefinition>`,
		NS, NSPortolan, inner)
}

// everyPlacement has each element once at least, in order.
const everyPlacement = `<p:Share> long
	</p:Share><p:QualityOfService>high</p:QualityOfService><p:Reservation>monday</p:Reservation>` +
	`<p:Deadline>2031-01-02T03:04:05+01:00</p:Deadline><p:NotBefore>2030-12-31T23:59:59.25Z</p:NotBefore><p:Priority>-5</p:Priority>` +
	`<p:Rerunnable>1</p:Rerunnable><p:GPU type="a100">2</p:GPU><p:GPU>1</p:GPU><p:Licence name="matlab">3</p:Licence>` +
	`<p:Constraint> avx2  &amp; ib </p:Constraint><p:Container>/images/root.sif</p:Container><p:Quorum>2</p:Quorum><p:Replicas>3</p:Replicas>` +
	`<p:Manager name="WantBirds">true</p:Manager><p:VO>bio.example.org</p:VO>`

func TestPlacement(t *testing.T) {
	j, ps := Parse(placement(everyPlacement), Options{})
	if len(ps) > 0 {
		t.Fatal(ps)
	}
	want := &Placement{
		Share: new("long"), QualityOfService: new("high"), Reservation: new("monday"),
		Deadline:  new(time.Date(2031, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))),
		NotBefore: new(time.Date(2030, 12, 31, 23, 59, 59, 25e7, time.UTC)),
		Priority:  new(-5), Rerunnable: new(true), GPUs: []GPU{{"a100", 2}, {"", 1}}, Licences: []Licence{{"matlab", 3}},
		Constraint: new("avx2  & ib"), Container: new("/images/root.sif"), Quorum: new(2), Replicas: new(3),
		Manager: []ManagerAttribute{{"WantBirds", "true"}}, VO: new("bio.example.org"),
	}
	if got := j.Description.Resources.Placement; !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v\nwant %+v", got, want)
	}
	again, ps := Parse(j.Marshal(), Options{})
	if len(ps) > 0 || !reflect.DeepEqual(again.Description.Resources.Placement, want) {
		t.Errorf("written and read again it is %+v (%v)", again.Description.Resources.Placement, ps)
	}
}
