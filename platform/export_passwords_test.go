package platform

import (
	"bytes"

	"smime-agent/platform/internal/security"
)

// MemoryPasswords are items of a keychain in memory.
type MemoryPasswords struct {
	Items map[string][]byte
	// Fail, if not 0, is the answer to everything.
	Fail security.Status
}

// Store is the secret store over them.
func (m *MemoryPasswords) Store() SecretStore { return &keychainSecrets{items: m} }

func (m *MemoryPasswords) refused() error {
	if m.Fail != 0 {
		return m.Fail
	}
	return nil
}

func (m *MemoryPasswords) get(account string) ([]byte, error) {
	data, there := m.Items[account]
	if err := m.refused(); err != nil || !there {
		return nil, orMissing(err)
	}
	return bytes.Clone(data), nil
}

func orMissing(err error) error {
	if err == nil {
		return security.ItemNotFound
	}
	return err
}

func (m *MemoryPasswords) add(account string, data []byte) error {
	if err := m.refused(); err != nil {
		return err
	}
	if _, there := m.Items[account]; there {
		return security.DuplicateItem
	}
	if m.Items == nil {
		m.Items = map[string][]byte{}
	}
	m.Items[account] = bytes.Clone(data)
	return nil
}

func (m *MemoryPasswords) update(account string, data []byte) error {
	if _, there := m.Items[account]; !there || m.Fail != 0 {
		return orMissing(m.refused())
	}
	m.Items[account] = bytes.Clone(data)
	return nil
}

func (m *MemoryPasswords) remove(account string) error {
	if _, there := m.Items[account]; !there || m.Fail != 0 {
		return orMissing(m.refused())
	}
	delete(m.Items, account)
	return nil
}
