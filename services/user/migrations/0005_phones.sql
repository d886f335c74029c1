-- A number for the carrier, in the form of E.164. Addresses may have no city or postal code: then the text is empty.
ALTER TABLE users.addresses ADD COLUMN phone text;
