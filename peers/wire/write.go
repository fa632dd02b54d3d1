package wire

import (
	"encoding/base64"
	"strconv"
)

// set writes an attribute that is not empty.
func (v *visit) set(name, s string) {
	if s != "" && v.e != nil {
		v.e.CreateAttr(name, s)
	}
}

// leaf writes a child element with text.
func (v *visit) leaf(name, s string) {
	if v.e != nil {
		v.e.CreateElement(prefix + ":" + name).SetText(s)
	}
}

// number writes, reads or weighs a number and gives it.
func (v *visit) number(name string, n, lo, hi int64) int64 {
	switch v.mode {
	case weighing:
		v.weigh(name, 12)
		return n
	case reading:
		n = 0
		if s := v.attr(name); s != "" {
			var err error
			if n, err = strconv.ParseInt(s, 10, 64); err != nil {
				v.wrong(name, "is %s; it takes a whole number from %d to %d", shown(s), lo, hi)
				return 0
			}
		}
	case writing:
		if n != 0 && v.e != nil {
			v.e.CreateAttr(name, strconv.FormatInt(n, 10))
		}
	case describing:
	}
	if n < lo || n > hi {
		v.wrong(name, "is %d; it takes a whole number from %d to %d", n, lo, hi)
	}
	return n
}

// write makes or weighs a child element.
func (v *visit) write(name string, fields func(*visit)) {
	if v.mode == weighing {
		v.weigh(name, len(name)+8)
		fields(v)
		return
	}
	if v.e == nil {
		fields(v)
		return
	}
	fields(&visit{mode: writing, err: v.err, e: v.e.CreateElement(prefix + ":" + name)})
}

// weigh adds what a field takes: its value and some for its name and marks.
func (v *visit) weigh(name string, bytes int) {
	if bytes > 0 {
		*v.size += len(name) + bytes + 8
	}
}

func base64Of(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
