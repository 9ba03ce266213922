package roster

import (
	"bytes"
	"encoding/binary"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/store"
)

const (
	maxPage = 500
	// pageBytes ends a page early, well under what a gRPC client takes.
	pageBytes = 2 << 20
	// maxScan is how many devices one call looks through for a filter that few pass.
	maxScan = 100_000
)

// Contact is what a running server knows beyond the records.
type Contact struct {
	Last, Next time.Time
	Revision   string
}

// Page gives the devices that pass the request's filters, in the order of
// joining, and where the next page begins, if any. The devices come as the
// fields of a ListDevicesResponse in wire form: what is only passed on need not
// be decoded. live may be nil.
func Page(tx store.Tx, req *controlv1.ListDevicesRequest, now time.Time, live func(id []byte) (Contact, bool)) (devices []byte, next string) {
	size := int(min(req.GetPageSize(), maxPage))
	if size == 0 {
		size = maxPage
	}
	want := newFilter(req, now)
	seen, count := 0, 0
	store.Ahead(tx, size+1) // and the one that the next page begins with
	tx.Range(store.Roster, nil, []byte(req.GetPageToken()), func(key, value []byte) bool {
		if count == size || len(devices) > pageBytes || seen == maxScan {
			next = string(key)
			return false
		}
		seen++
		message, last, _ := store.Stamped(value)
		entry, ok := split(message)
		if !ok {
			return true // of a newer version, or damaged: it is not worth the whole list
		}
		contact := Contact{}
		if last.UnixMilli() > 0 {
			contact.Last = last
		}
		if live != nil {
			if current, ok := live(key); ok {
				if contact.Last.After(current.Last) { // it called at another server
					current.Last = contact.Last
				}
				contact = current
			}
		}
		if want.passes(entry, contact.Last) {
			devices = appendDevice(devices, entry[partDevice], contact)
			count++
		}
		return true
	})
	return devices, next
}

func split(message []byte) (entry [parts][]byte, ok bool) {
	for i := range entry {
		length, n := binary.Uvarint(message)
		if n <= 0 || length > uint64(len(message)-n) {
			return entry, false
		}
		entry[i], message = message[n:n+int(length)], message[n+int(length):]
	}
	return entry, len(entry[partJoined]) == 8
}

// filter is a request made ready for the entries' form.
type filter struct {
	state, search, version, condition []byte
	silent                            time.Duration
	now                               time.Time
}

func newFilter(req *controlv1.ListDevicesRequest, now time.Time) filter {
	f := filter{
		state: []byte(req.GetState()), now: now,
		search:  []byte(strings.ToLower(req.GetMatches())),
		version: []byte(strings.ToLower(req.GetVersion())),
	}
	if code := req.GetCondition(); code != "" {
		f.condition = []byte(separator + code + separator)
	}
	if req.GetSilentFor() != nil {
		f.silent = req.GetSilentFor().AsDuration()
	}
	return f
}

func (f filter) passes(entry [parts][]byte, last time.Time) bool {
	if len(f.state) > 0 && !bytes.Equal(f.state, entry[partState]) {
		return false
	}
	if f.silent > 0 {
		if last.IsZero() {
			last = time.UnixMilli(int64(binary.BigEndian.Uint64(entry[partJoined])))
		}
		if f.now.Sub(last) < f.silent {
			return false
		}
	}
	// An empty part is in everything.
	return bytes.Contains(entry[partConditions], f.condition) && bytes.Contains(entry[partVersion], f.version) &&
		bytes.Contains(entry[partSearch], f.search)
}

// appendDevice writes one of the response's devices. Fields that follow the
// stored ones are the message's too: protobuf lets them come in any order.
func appendDevice(out, device []byte, c Contact) []byte {
	const (
		devicesField     = 1 // of ListDevicesResponse
		lastContactField = 5
		policyField      = 7
		nextContactField = 12
	)
	var room [96]byte
	more := appendTime(room[:0], lastContactField, c.Last)
	if c.Revision != "" {
		more = protowire.AppendTag(more, policyField, protowire.BytesType)
		more = protowire.AppendString(more, c.Revision)
	}
	more = appendTime(more, nextContactField, c.Next)
	out = protowire.AppendTag(out, devicesField, protowire.BytesType)
	out = protowire.AppendVarint(out, uint64(len(device)+len(more)))
	return append(append(out, device...), more...)
}

// appendTime writes a google.protobuf.Timestamp; the zero time is left out.
func appendTime(out []byte, field protowire.Number, t time.Time) []byte {
	if t.IsZero() {
		return out
	}
	var inner [2 * (1 + binary.MaxVarintLen64)]byte
	value := protowire.AppendTag(inner[:0], 1, protowire.VarintType)
	value = protowire.AppendVarint(value, uint64(t.Unix()))
	value = protowire.AppendTag(value, 2, protowire.VarintType)
	value = protowire.AppendVarint(value, uint64(t.Nanosecond()))
	return protowire.AppendBytes(protowire.AppendTag(out, field, protowire.BytesType), value)
}
