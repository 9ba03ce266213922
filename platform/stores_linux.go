package platform

import "context"

func stores(context.Context, StoreOptions) ([]Store, error) { return nil, ErrUnsupported }
