//! Regular expressions that Envoy takes. It refuses with the whole route configuration what its RE2 cannot read or finds too large, so
//! what comes near to that is refused here: what [`regex_syntax`] reads, without what RE2 has not, and with a bound on the size of
//! the program that RE2 makes of it.

use regex_syntax::ast::{
    self, AssertionKind, Ast, ClassSet, ClassSetItem, Flag, FlagsItemKind, GroupKind, HexLiteralKind, LiteralKind,
    RepetitionKind, RepetitionRange, SpecialLiteralKind, Visitor,
};

/// Instructions of the program: Envoy's `re2.max_program_size.error_level` is 100 unless its runtime says otherwise, and four are in
/// every program.
const MAX_SIZE: u64 = 96;

/// Bytes of the text.
const MAX_LENGTH: usize = 256;

/// How often anything may be repeated by number.
const MAX_REPEAT: u32 = 1_000;

/// Instructions of a class such as `\W` or `[:punct:]`.
const PERL: u64 = 5;

/// Whether Envoy takes it; else why not.
pub(super) fn check(pattern: &str) -> Result<(), String> {
    if pattern.is_empty() {
        return Err("it is empty".to_owned());
    }
    if pattern.len() > MAX_LENGTH {
        return Err(format!("it has more than {MAX_LENGTH} bytes"));
    }
    let ast = ast::parse::ParserBuilder::new().nest_limit(32).build().parse(pattern);
    let ast = ast.map_err(|error| error.kind().to_string())?;
    ast::visit(&ast, Foreign { pattern })?;
    match size(&ast) {
        ..=MAX_SIZE => Ok(()),
        _ => Err("it is too large: Envoy takes about 100 instructions, one for each character and range".to_owned()),
    }
}

/// Finds what RE2 has not, or reads in another way.
struct Foreign<'a> {
    pattern: &'a str,
}

impl Foreign<'_> {
    fn written(&self, span: &ast::Span) -> &str {
        self.pattern.get(span.start.offset..span.end.offset).unwrap_or_default()
    }

    fn refuse(&self, span: &ast::Span) -> Result<(), String> {
        Err(format!("RE2, which Envoy uses, has no `{}`", self.written(span)))
    }

    fn flags(&self, flags: &ast::Flags) -> Result<(), String> {
        let foreign = |item: &ast::FlagsItem| {
            !matches!(
                item.kind,
                FlagsItemKind::Negation
                    | FlagsItemKind::Flag(
                        Flag::CaseInsensitive | Flag::MultiLine | Flag::DotMatchesNewLine | Flag::SwapGreed
                    )
            )
        };
        flags.items.iter().find(|item| foreign(item)).map_or(Ok(()), |item| self.refuse(&item.span))
    }

    fn literal(&self, literal: &ast::Literal) -> Result<(), String> {
        match literal.kind {
            _ if !literal.c.is_ascii() => Err(format!("{:?} is not ASCII, and Envoy matches bytes", literal.c)),
            LiteralKind::HexFixed(HexLiteralKind::X) | LiteralKind::HexBrace(HexLiteralKind::X) => Ok(()),
            LiteralKind::HexFixed(_) | LiteralKind::HexBrace(_) => self.refuse(&literal.span),
            LiteralKind::Superfluous if literal.c == '_' => self.refuse(&literal.span),
            LiteralKind::Special(SpecialLiteralKind::Space) => self.refuse(&literal.span),
            _ => Ok(()),
        }
    }
}

impl Visitor for Foreign<'_> {
    type Output = ();
    type Err = String;

    fn finish(self) -> Result<(), String> {
        Ok(())
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), String> {
        match ast {
            Ast::Flags(set) => self.flags(&set.flags),
            Ast::Literal(literal) => self.literal(literal),
            Ast::ClassUnicode(class) => self.refuse(&class.span),
            Ast::Assertion(assertion) => match assertion.kind {
                AssertionKind::StartLine
                | AssertionKind::EndLine
                | AssertionKind::StartText
                | AssertionKind::EndText
                | AssertionKind::WordBoundary
                | AssertionKind::NotWordBoundary => Ok(()),
                _ => self.refuse(&assertion.span),
            },
            Ast::Repetition(repetition) => {
                let most = match &repetition.op.kind {
                    RepetitionKind::Range(
                        RepetitionRange::Exactly(n) | RepetitionRange::AtLeast(n) | RepetitionRange::Bounded(_, n),
                    ) => *n,
                    _ => 0,
                };
                let is_twice = matches!(*repetition.ast, Ast::Repetition(_));
                if most > MAX_REPEAT || is_twice { self.refuse(&repetition.op.span) } else { Ok(()) }
            }
            Ast::Group(group) => match &group.kind {
                GroupKind::CaptureName { name, .. }
                    if !name.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') =>
                {
                    self.refuse(&name.span)
                }
                GroupKind::NonCapturing(flags) => self.flags(flags),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), String> {
        match item {
            ClassSetItem::Literal(literal) => self.literal(literal),
            ClassSetItem::Range(range) => self.literal(&range.start).and_then(|()| self.literal(&range.end)),
            ClassSetItem::Unicode(class) => self.refuse(&class.span),
            ClassSetItem::Bracketed(class) => self.refuse(&class.span),
            _ => Ok(()),
        }
    }

    fn visit_class_set_binary_op_pre(&mut self, op: &ast::ClassSetBinaryOp) -> Result<(), String> {
        self.refuse(&op.span)
    }
}

/// How many instructions RE2 makes of it, at most. Of bytes: Envoy has it read Latin-1.
fn size(ast: &Ast) -> u64 {
    match ast {
        Ast::Empty(_) | Ast::Flags(_) | Ast::Assertion(_) => 4,
        Ast::Literal(_) => 1,
        Ast::Dot(_) => 2,
        Ast::ClassUnicode(_) | Ast::ClassPerl(_) => PERL,
        Ast::ClassBracketed(class) => match &class.kind {
            ClassSet::Item(item) => of_item(item) + u64::from(class.negated),
            ClassSet::BinaryOp(_) => MAX_SIZE,
        },
        Ast::Group(group) => size(&group.ast).saturating_add(2),
        Ast::Alternation(all) => all.asts.iter().fold(0, |sum, ast| sum.saturating_add(size(ast)).saturating_add(1)),
        Ast::Concat(all) => all.asts.iter().fold(0, |sum, ast| sum.saturating_add(size(ast))),
        Ast::Repetition(repetition) => {
            let times = match &repetition.op.kind {
                RepetitionKind::Range(RepetitionRange::Exactly(n) | RepetitionRange::Bounded(_, n)) => u64::from(*n),
                RepetitionKind::Range(RepetitionRange::AtLeast(n)) => u64::from(*n) + 1,
                _ => 1,
            };
            size(&repetition.ast).saturating_add(1).saturating_mul(times.max(1))
        }
    }
}

/// A set of characters: an instruction for each range.
fn of_item(item: &ClassSetItem) -> u64 {
    match item {
        ClassSetItem::Empty(_) => 0,
        ClassSetItem::Literal(_) | ClassSetItem::Range(_) => 1,
        ClassSetItem::Ascii(_) | ClassSetItem::Perl(_) => PERL,
        ClassSetItem::Unicode(_) | ClassSetItem::Bracketed(_) => MAX_SIZE,
        ClassSetItem::Union(union) => union.items.iter().map(of_item).sum(),
    }
}
