//! Calls of functions.

use pg_raw_parse::list::NodeList;
use pg_raw_parse::raw::CoercionForm;
use pg_raw_parse::{ConstValue, Node, nodes};

use super::Findings;
use crate::catalog::{self, Marks, Name, Place};
use crate::statement::{Because, Class, Flag, Pin};

/// The name that a list of its parts spells.
pub(super) fn name(parts: &NodeList) -> Option<Name<'_>> {
    Name::of(parts.iter().filter_map(Node::as_str))
}

/// The value of a constant.
pub(crate) fn constant(node: Option<Node<'_>>) -> Option<ConstValue<'_>> {
    match node? {
        Node::A_Const(constant) => constant.val(),
        _ => None,
    }
}

impl Findings<'_> {
    pub(super) fn call(&mut self, call: &nodes::FuncCall) {
        // EXTRACT, OVERLAY, TRIM and such are spelled by the grammar, and always built in.
        if call.funcformat == CoercionForm::COERCE_SQL_SYNTAX {
            return;
        }
        let Some(name) = name(call.funcname()) else { return };
        if name.is_built_in("set_config") {
            return self.set_config(call);
        }
        if name.is_built_in("current_setting") {
            self.current_setting(call);
        }
        self.function_named(Some(name));
    }

    pub(super) fn function_named(&mut self, name: Option<Name<'_>>) {
        let Some(name) = name else { return };
        if name.is_temporary() {
            self.flags.insert(Flag::SameBackend);
            return self.certainly(Because::UnknownFunction);
        }
        let (catalog, path) = (self.context.catalog, self.context.search_path);
        match catalog.function(name, path) {
            Some(function) => {
                self.mark(function.marks);
                if function.place == Place::Primary {
                    self.perhaps(Because::Function);
                }
            }
            // `int4(x)` is a cast that looks like a call.
            None if catalog.type_named(name, path) == Some(Place::Anywhere) => {}
            None => {
                self.mark(catalog::marks(name));
                self.is_plain_select &= catalog::reads_by_its_name(name);
                self.perhaps(Because::UnknownFunction);
            }
        }
    }

    fn mark(&mut self, marks: Marks) {
        if marks != Marks::NONE {
            self.flags = self.flags.union(marks.flags);
            self.pins = self.pins.union(marks.pins);
            self.certainly(Because::Function);
        }
    }

    /// `set_config(name, value, is_local)` is SET, as a function.
    fn set_config(&mut self, call: &nodes::FuncCall) {
        self.otherwise = Class::Session;
        self.flags.insert(Flag::Details);
        match constant(call.args().get(2)) {
            Some(ConstValue::Boolean(true)) => self.flags.insert(Flag::LocalSet),
            _ => self.pins.insert(Pin::SetConfig),
        }
    }

    /// The session's settings are the same everywhere, but for those that tell one server from another.
    fn current_setting(&mut self, call: &nodes::FuncCall) {
        if let Some(ConstValue::String(setting)) = constant(call.args().first()) {
            self.flags.insert(Flag::ByLiteral);
            if catalog::tells_the_server(setting) {
                self.perhaps(Because::Function);
            }
        }
    }
}
