#!/bin/sh
# Read by the edge's image before it fills in the configuration: the key that the storefront has too, and the one that
# asks for a canary.
STOREFRONT_KEY=$(cat /run/secrets/storefront_key)
CANARY_KEY=$(cat /run/secrets/canary_key)
export STOREFRONT_KEY CANARY_KEY
