#!/bin/sh
# Read by the edge's image before it fills in the configuration: the key that the storefront has too.
STOREFRONT_KEY=$(cat /run/secrets/storefront_key)
export STOREFRONT_KEY
