//go:build cgo

package platform

import (
	"errors"

	keychains "github.com/keybase/go-keychain"

	"smime-agent/platform/internal/security"
)

// secrets opens the keychain that the system gives this account: for root it is
// the System keychain, since root's security session uses the system's domain
// (StorageManager.cpp). Services with other folders have items of their own.
func secrets(dir string) (SecretStore, error) {
	service := serviceOfSecrets
	if dir != systemPaths().State {
		service += " " + dir
	}
	return &keychainSecrets{items: genericPasswords{service}}, security.AllowQuestions(false)
}

// serviceOfSecrets is how the items are called in Keychain Access.
const serviceOfSecrets = policyDomain

// genericPasswords are items of class "generic password". Who made them may read
// them; a service cannot be asked, so a refusal comes as a status.
type genericPasswords struct{ service string }

func (g genericPasswords) get(account string) ([]byte, error) {
	data, err := keychains.GetGenericPassword(g.service, account, "", "")
	if err == nil && data == nil {
		return nil, security.ItemNotFound
	}
	return data, statusOf(err)
}

func (g genericPasswords) add(account string, data []byte) error {
	return statusOf(keychains.AddItem(keychains.NewGenericPassword(g.service, account, g.service, data, "")))
}

func (g genericPasswords) update(account string, data []byte) error {
	change := keychains.NewItem()
	change.SetData(data)
	return statusOf(keychains.UpdateItem(g.named(account), change))
}

func (g genericPasswords) remove(account string) error {
	return statusOf(keychains.DeleteItem(g.named(account)))
}

func (g genericPasswords) named(account string) keychains.Item {
	item := keychains.NewItem()
	item.SetSecClass(keychains.SecClassGenericPassword)
	item.SetService(g.service)
	item.SetAccount(account)
	return item
}

// statusOf makes of the library's errors the statuses that they are.
func statusOf(err error) error {
	if status, ok := errors.AsType[keychains.Error](err); ok {
		return security.Status(status)
	}
	return err
}
