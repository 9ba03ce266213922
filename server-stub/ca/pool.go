package ca

import (
	"context"
	"encoding/asn1"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
)

// ErrOverloaded: more certificates are asked for than may wait.
var ErrOverloaded = errors.New("the signing queue is full")

// queueLength is how many may wait for a signer; the rest is told to come back.
const queueLength = 1024

// pool lets twice as many sign as there are cores, and a bounded number wait.
type pool struct {
	waiting chan struct{}
	signing chan struct{}
}

func newPool() *pool {
	return &pool{
		waiting: make(chan struct{}, queueLength),
		signing: make(chan struct{}, 2*runtime.NumCPU()),
	}
}

// enter waits for a place; the caller gives it back by release.
func (p *pool) enter(ctx context.Context) (release func(), err error) {
	select {
	case p.waiting <- struct{}{}:
	default:
		return nil, ErrOverloaded
	}
	select {
	case p.signing <- struct{}{}:
		return func() { <-p.signing; <-p.waiting }, nil
	case <-ctx.Done():
		<-p.waiting
		return nil, ctx.Err()
	}
}

// ParseOID reads an object identifier in dots.
func ParseOID(text string) (asn1.ObjectIdentifier, error) {
	parts := strings.Split(text, ".")
	oid := make(asn1.ObjectIdentifier, 0, len(parts))
	for _, part := range parts {
		n, err := strconv.ParseUint(part, 10, 31)
		if err != nil {
			return nil, fmt.Errorf("%q is no object identifier", text)
		}
		oid = append(oid, int(n))
	}
	if len(oid) < 3 || oid[0] > 2 || oid[0] < 2 && oid[1] > 39 {
		return nil, fmt.Errorf("%q is no object identifier", text)
	}
	return oid, nil
}
