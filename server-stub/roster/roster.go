// Package roster keeps beside each device's records one short one with all that
// a listing shows of the device and all that it is looked for by, so that a
// fleet is listed in one pass over the store: nothing is decoded, and nothing
// is held in memory. It is written in the same transaction as what it is made
// of, so that it is right for whoever reads the store.
package roster

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/store"
)

// PutDevice files a device.
func PutDevice(tx store.Tx, d store.Device) error {
	if err := store.PutJSON(tx, store.Devices, []byte(d.ID), d); err != nil {
		return err
	}
	message, last, _ := store.Stamped(tx.Get(store.Statuses, []byte(d.ID)))
	return put(tx, d, message, last)
}

// PutReport files a device's report as it is stored, with the time of the contact.
func PutReport(tx store.Tx, d store.Device, report []byte, at time.Time) error {
	if err := tx.Put(store.Statuses, []byte(d.ID), store.Stamp(report, at)); err != nil {
		return err
	}
	return put(tx, d, report, at)
}

// PutContact files nothing but a later contact; an earlier one it leaves, as it
// does a device that is not there.
func PutContact(tx store.Tx, id string, at time.Time) error {
	report, last, _ := store.Stamped(tx.Get(store.Statuses, []byte(id)))
	if !at.After(last) {
		return nil
	}
	if err := tx.Put(store.Statuses, []byte(id), store.Stamp(report, at)); err != nil {
		return err
	}
	entry, _, ok := store.Stamped(tx.Get(store.Roster, []byte(id)))
	if !ok {
		return nil
	}
	return tx.Put(store.Roster, []byte(id), store.Stamp(entry, at))
}

// Describe says what the records have of a device, but for its last contact.
func Describe(d store.Device, report *controlv1.SyncRequest) *controlv1.Device {
	out := &controlv1.Device{
		Id: d.ID, State: d.State, Joined: timestamppb.New(d.Joined), IdentityEnds: timestamppb.New(d.IdentityEnds),
		Facts: &controlv1.DeviceFacts{
			Hostname: d.Hostname, Os: d.OS, OsVersion: d.OSVersion, AgentVersion: d.AgentVersion, MachineIdHash: d.MachineID,
		},
		Conditions:  report.GetConditions(),
		Credentials: uint32(len(report.GetCredentials())),
	}
	for _, user := range report.GetUsers() {
		out.Accounts = append(out.Accounts, user.GetAccount())
	}
	for _, c := range report.GetCredentials() {
		if c.GetProof().GetOk() {
			out.Proved++
		}
	}
	return out
}

// The parts of an entry, each with its length before it.
const (
	partJoined     = iota // milliseconds, 8 octets
	partState             //
	partSearch            // lower case, separated by NUL
	partVersion           // the same
	partConditions        // codes of conditions between NULs, with anyCondition behind each that is no mere information
	partDevice            // a Device in wire form, without contact
	parts
)

// anyCondition stands for every condition that is no mere information.
const anyCondition = "any"

func put(tx store.Tx, d store.Device, message []byte, last time.Time) error {
	report := &controlv1.SyncRequest{}
	if err := proto.Unmarshal(message, report); err != nil {
		report = &controlv1.SyncRequest{} // a listing shows the device all the same
	}
	entry, err := encode(d, report)
	if err != nil {
		return err
	}
	return tx.Put(store.Roster, []byte(d.ID), store.Stamp(entry, last))
}

func encode(d store.Device, report *controlv1.SyncRequest) ([]byte, error) {
	device := Describe(d, report)
	wire, err := proto.Marshal(device)
	if err != nil {
		return nil, fmt.Errorf("encode device: %w", err)
	}
	search := append([]string{d.ID, d.Hostname}, device.GetAccounts()...)
	for _, c := range report.GetCredentials() {
		search = append(search, c.GetMailbox())
	}
	conditions := []string{""} // so that each code has a separator on both sides
	for _, c := range report.GetConditions() {
		conditions = append(conditions, c.GetCode())
		if c.GetSeverity() != "info" {
			conditions = append(conditions, anyCondition)
		}
	}
	conditions = append(conditions, "")
	var out []byte
	for _, part := range [parts][]byte{
		partJoined: binary.BigEndian.AppendUint64(nil, uint64(max(d.Joined.UnixMilli(), 0))),
		partState:  []byte(d.State), partSearch: fold(search...),
		partVersion: fold(d.AgentVersion, d.OS+" "+d.OSVersion), partConditions: []byte(strings.Join(conditions, separator)), partDevice: wire,
	} {
		out = append(binary.AppendUvarint(out, uint64(len(part))), part...)
	}
	return out, nil
}

const separator = "\x00"

func fold(texts ...string) []byte { return []byte(strings.ToLower(strings.Join(texts, separator))) }

// complete marks a store whose devices all have their entry.
const complete = "roster"

// rebuildPart bounds one transaction of [Rebuild].
const rebuildPart = 1000

// Rebuild makes the entries of a store from before there were any.
func Rebuild(ctx context.Context, s store.Store) error {
	done := false
	err := s.View(func(tx store.Tx) error { done = tx.Get(store.Meta, []byte(complete)) != nil; return nil })
	var from []byte
	for err == nil && !done {
		var next []byte
		err = s.Update(ctx, func(tx store.Tx) error {
			var err error
			if next, err = rebuild(tx, from); err != nil || next != nil {
				return err
			}
			return tx.Put(store.Meta, []byte(complete), []byte{1})
		})
		from, done = next, next == nil
	}
	if err != nil {
		return fmt.Errorf("list devices anew: %w", err)
	}
	return nil
}

// rebuild makes some entries and gives the device to go on with.
func rebuild(tx store.Tx, from []byte) (next []byte, err error) {
	var devices []store.Device
	err = store.EachJSON(tx, store.Devices, from, func(key []byte, d store.Device) bool {
		if len(devices) == rebuildPart {
			next = append([]byte(nil), key...)
			return false
		}
		devices = append(devices, d)
		return true
	})
	for _, d := range devices {
		if err != nil {
			break
		}
		message, last, _ := store.Stamped(tx.Get(store.Statuses, []byte(d.ID)))
		err = put(tx, d, message, last)
	}
	return next, err
}
