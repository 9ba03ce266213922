package platform

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
)

// handoverValue is what the package writes (installer/windows/smime-agent.wxs).
const handoverValue = "token"

// takeHandover takes the value of a key of its own. The package gives that key an
// access list that lets nobody else read it; a repair writes an empty value.
func takeHandover(place string, keep func(Handover) error) error {
	found, err := readHandover(place)
	if err == nil && found.Text != "" {
		err = keep(found)
	}
	if err != nil && !errors.Is(err, errForeignHandover) {
		return err
	}
	if removed := removeKey(place); removed != nil {
		err = errors.Join(err, fmt.Errorf("remove %s: %w", place, removed))
	}
	if err == nil && found.Text == "" {
		return fmt.Errorf("%s: %w", place, ErrNotFound)
	}
	return err
}

var errForeignHandover = errors.New("somebody else may have written it")

func readHandover(place string) (Handover, error) {
	path, ok := strings.CutPrefix(place, `HKLM\`)
	if !ok {
		return Handover{}, ErrNotFound
	}
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, path, registry.QUERY_VALUE|registry.WOW64_64KEY|windows.READ_CONTROL)
	if errors.Is(err, registry.ErrNotExist) {
		return Handover{}, ErrNotFound
	}
	if err != nil {
		return Handover{}, fmt.Errorf("read %s: %w", place, denied(err))
	}
	defer func() { _ = k.Close() }()
	sec, err := trustedKey(windows.Handle(k))
	if errors.Is(err, ErrDenied) {
		return Handover{}, fmt.Errorf("read %s: %w: %w", place, errForeignHandover, err)
	}
	if err != nil {
		return Handover{}, fmt.Errorf("read %s: %w", place, err)
	}
	text, _, err := k.GetStringValue(handoverValue)
	if err != nil && !errors.Is(err, registry.ErrNotExist) {
		return Handover{}, fmt.Errorf("read %s: %w", place, denied(err))
	}
	return Handover{Text: text, Exposed: sec.others&mayQueryKey != 0}, nil
}

// removeKey overwrites the value first: a hive keeps what was deleted in its
// free cells until they are used again.
func removeKey(place string) error {
	path, _ := strings.CutPrefix(place, `HKLM\`)
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, path, registry.QUERY_VALUE|registry.SET_VALUE|registry.WOW64_64KEY)
	if errors.Is(err, registry.ErrNotExist) {
		return nil
	}
	if err != nil {
		return denied(err)
	}
	err = blank(k)
	if err := errors.Join(err, k.Close()); err != nil {
		return denied(err)
	}
	return denied(registry.DeleteKey(registry.LOCAL_MACHINE, path))
}

func blank(k registry.Key) error {
	text, _, err := k.GetStringValue(handoverValue)
	if errors.Is(err, registry.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = k.SetStringValue(handoverValue, strings.Repeat("0", len(text)))
	}
	return errors.Join(err, k.DeleteValue(handoverValue))
}
