package modelstore

import (
	"encoding/json"

	"github.com/klauspost/compress/s2"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/resourcemodel"
)

// maxPlain bounds a value before compression: a history line has both parts of a site.
const maxPlain = 2*resourcemodel.MaxRecord + 1024

// The first byte of a value says how it is written.
const (
	plain      = 'p'
	compressed = 's'
)

func pack(b []byte) []byte {
	if len(b) >= 256 {
		if small := s2.EncodeBetter(nil, b); len(small) < len(b) {
			return append([]byte{compressed}, small...)
		}
	}
	return append([]byte{plain}, b...)
}

func unpack(b []byte) ([]byte, error) {
	damaged := func(err error) error {
		return fail.Errorf("modelstore.unpack", fail.Internal, "", "a record of the model is damaged").Because(err)
	}
	if len(b) == 0 {
		return nil, damaged(nil)
	}
	switch b[0] {
	case plain:
		return b[1:], nil
	case compressed:
		n, err := s2.DecodedLen(b[1:])
		if err != nil || n > maxPlain {
			return nil, damaged(err)
		}
		out, err := s2.Decode(nil, b[1:])
		if err != nil {
			return nil, damaged(err)
		}
		return out, nil
	}
	return nil, damaged(nil)
}

// line is one change of a site as the history has it: the parts that were replaced.
type line struct {
	Static  json.RawMessage `json:"static,omitempty"`
	Dynamic json.RawMessage `json:"dynamic,omitempty"`
	Gone    bool            `json:"gone,omitempty"`
}

func (l *line) encode() ([]byte, error) {
	b, err := json.Marshal(l)
	if err != nil {
		return nil, fail.E("modelstore.Feed", fail.Internal, "", err)
	}
	return pack(b), nil
}

func decodeLine(value []byte) (*line, error) {
	b, err := unpack(value)
	if err != nil {
		return nil, err
	}
	l := new(line)
	if err := json.Unmarshal(b, l); err != nil {
		return nil, fail.Errorf("modelstore.At", fail.Internal, "", "a line of the model's history is damaged").Because(err)
	}
	return l, nil
}

// change gives the line as a change of the model.
func (l *line) change(k resourcemodel.Key) (resourcemodel.Change, error) {
	c := resourcemodel.Change{Key: k, Gone: l.Gone}
	var err error
	if l.Static != nil {
		c.Static, err = resourcemodel.DecodeStatic(l.Static)
	}
	if l.Dynamic != nil && err == nil {
		c.Dynamic, err = resourcemodel.DecodeDynamic(l.Dynamic)
	}
	return c, err
}
