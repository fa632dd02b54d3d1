package resourcemodel

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"

	"github.com/portolan-project/portolan/internal/fail"
)

// MaxRecord bounds a part in its encoded form, in bytes; a record of the store takes as many.
const MaxRecord = 1 << 20

// maxObjects bounds the JSON objects of a record, and so what reading it can allocate:
// a few bytes of JSON make a Share or an Environment.
const maxObjects = 16384

// Encode gives the part as JSON, of which equal values have equal bytes, so that writing
// a value again costs a store nothing. One that is beyond the bounds is refused: see
// Check; one of more than MaxRecord bytes is fail.Exhausted.
func (s *Static) Encode() ([]byte, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	return encode("resourcemodel.Static.Encode", s.Canonical())
}

// Encode is that of Static.
func (d *Dynamic) Encode() ([]byte, error) {
	if err := d.Check(); err != nil {
		return nil, err
	}
	return encode("resourcemodel.Dynamic.Encode", d.Canonical())
}

func encode(op string, v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fail.Errorf(op, fail.Internal, "", "the description of the site could not be written").Because(err)
	}
	if len(b) > MaxRecord {
		return nil, fail.Errorf(op, fail.Exhausted, "", "the description of the site has %d bytes; at most %d are taken: list fewer host names, or let like nodes be one environment", len(b), MaxRecord)
	}
	if n := objects(b); n > maxObjects {
		return nil, fail.Errorf(op, fail.Exhausted, "", "the description of the site has %d parts; at most %d are taken: let like nodes be one environment", n, maxObjects)
	}
	return b, nil
}

// DecodeStatic reads what Encode wrote, and nothing else: a member that is not known,
// is there twice or is spelled otherwise, another order or white space are refused, as
// is what is beyond the bounds: fail.Invalid.
func DecodeStatic(b []byte) (*Static, error) {
	s := new(Static)
	if err := decode("resourcemodel.DecodeStatic", b, s); err != nil {
		return nil, err
	}
	again, err := s.Encode()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, b) {
		return nil, uncanonical("resourcemodel.DecodeStatic", again, b)
	}
	return s, nil
}

// DecodeDynamic is DecodeStatic for the other part.
func DecodeDynamic(b []byte) (*Dynamic, error) {
	d := new(Dynamic)
	if err := decode("resourcemodel.DecodeDynamic", b, d); err != nil {
		return nil, err
	}
	again, err := d.Encode()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, b) {
		return nil, uncanonical("resourcemodel.DecodeDynamic", again, b)
	}
	return d, nil
}

func decode(op string, b []byte, v any) error {
	switch n := objects(b); {
	case len(b) > MaxRecord:
		return fail.Errorf(op, fail.Invalid, "", "the record has %d bytes; at most %d are taken", len(b), MaxRecord)
	case n > maxObjects:
		return fail.Errorf(op, fail.Invalid, "", "the record has %d objects; at most %d are taken", n, maxObjects)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		return fail.Errorf(op, fail.Invalid, "", "there is something behind the end of the record")
	}
	if _, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fail.Errorf(op, fail.Invalid, "", "the record is not JSON").Because(err)
	}
	if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fail.Errorf(op, fail.Invalid, "", "the record's member %s has a %s, which is no value for it", shown(t.Field), t.Value).Because(err)
	}
	return fail.Errorf(op, fail.Invalid, "", "the record is cut short or has a member that is not known").Because(err)
}

// uncanonical is the error of a record that means something and is not as Encode
// writes it.
func uncanonical(op string, want, got []byte) error {
	at := 0
	for at < len(want) && at < len(got) && want[at] == got[at] {
		at++
	}
	return fail.Errorf(op, fail.Invalid, "", "the record is not in canonical form: at byte %d it has %s, where %s is expected", at, shown(glimpse(got, at)), shown(glimpse(want, at)))
}

func glimpse(b []byte, at int) string { return string(b[at:min(at+24, len(b))]) }

// objects counts the objects of a JSON text without reading it.
func objects(b []byte) int {
	n, quoted := 0, false
	for i := 0; i < len(b); i++ {
		switch {
		case b[i] == '"':
			quoted = !quoted
		case b[i] == '\\' && quoted:
			i++
		case b[i] == '{' && !quoted:
			n++
		}
	}
	return n
}
