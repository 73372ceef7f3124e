package chunking

import (
	"bytes"
	"errors"
	"testing"

	"github.com/restic/chunker"
	"github.com/zeebo/blake3"
)

func TestPolynomial(t *testing.T) {
	h := blake3.New()
	h.WriteString("ferry chunking polynomial v1")
	got, err := chunker.DerivePolynomial(h.Digest())
	if err != nil || got != Polynomial {
		t.Errorf("DerivePolynomial() = %#x, %v, want %#x", uint64(got), err, uint64(Polynomial))
	}
	if p := chunker.Pol(Polynomial); p.Deg() != 53 || !p.Irreducible() {
		t.Errorf("%#x has degree %d, irreducible %t, want degree 53, irreducible", uint64(p), p.Deg(), p.Irreducible())
	}
}

func TestValidate(t *testing.T) {
	with := func(change func(*Params)) Params {
		p := Default()
		change(&p)
		return p
	}
	tests := []struct {
		name string
		p    Params
		ok   bool
	}{
		{"default", Default(), true},
		{"zero", Params{}, false},
		{"other algorithm", with(func(p *Params) { p.Algorithm = "gear" }), false},
		{"no algorithm", with(func(p *Params) { p.Algorithm = "" }), false},
		{"polynomial of degree 52", with(func(p *Params) { p.Polynomial = 1<<52 | 1 }), false},
		{"polynomial of degree 54", with(func(p *Params) { p.Polynomial |= 1 << 54 }), false},
		{"no polynomial", with(func(p *Params) { p.Polynomial = 0 }), false},
		{"least min", with(func(p *Params) { p.Min = 64 }), true},
		{"min too small", with(func(p *Params) { p.Min = 63 }), false},
		{"min negative", with(func(p *Params) { p.Min = -1 }), false},
		{"min equals max", with(func(p *Params) { p.Min = p.Max }), true},
		{"min above max", with(func(p *Params) { p.Min = p.Max + 1 }), false},
		{"greatest max", with(func(p *Params) { p.Max = 4 << 20 }), true},
		{"max too large", with(func(p *Params) { p.Max = 4<<20 + 1 }), false},
		{"least average", with(func(p *Params) { p.AverageBits = 6 }), true},
		{"average too small", with(func(p *Params) { p.AverageBits = 5 }), false},
		{"greatest average", with(func(p *Params) { p.AverageBits = 26 }), true},
		{"average too large", with(func(p *Params) { p.AverageBits = 27 }), false},
		{"least zero run", with(func(p *Params) { p.ZeroRun = 64 }), true},
		{"zero run too short", with(func(p *Params) { p.ZeroRun = 63 }), false},
		{"greatest zero run", with(func(p *Params) { p.ZeroRun = 1 << 20 }), true},
		{"zero run too long", with(func(p *Params) { p.ZeroRun = 1<<20 + 1 }), false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := test.p.Validate()
			if (err == nil) != test.ok || err != nil && !errors.Is(err, ErrParams) {
				t.Errorf("Validate(%+v) = %v, want ok %t", test.p, err, test.ok)
			}
			c, newErr := New(bytes.NewReader(nil), test.p)
			if (newErr == nil) != test.ok || (c != nil) != test.ok {
				t.Errorf("New(%+v) = %v, %v, want ok %t", test.p, c != nil, newErr, test.ok)
			}
		})
	}
}
